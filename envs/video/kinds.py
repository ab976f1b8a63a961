"""The kinds of question about a film: each lets things show in it, and asks what only these moments tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from msgspec import Struct

from agentenv.envs.video.film import FPS, Card, Cue, Door, Lamp, Scene, Thing
from agentenv.envs.video.plan import Script
from agentenv.envs.zoom.vocabulary import COLOURS, WORDS_OF, code, nearly

_FILLS = ("red", "blue", "green", "yellow", "white", "purple")
_LIT = ("red", "green", "blue", "yellow", "white")
_FLASH = 6  # frames, a little more than a second
_DARK = 6


class Asked(Struct, frozen=True):
    """A question, its answer, and the moments that prove it.

    `answer_type` is code, text, integer, colour, sequence or span (see `answers.video_match`); `spans` are in frames.
    """

    text: str
    answer: str | list[float]
    answer_type: str
    spans: tuple[tuple[int, int], ...]


Ask = Callable[[Script, str], Asked]


def read_code(script: Script, split: str) -> Asked:
    """Which code does a card of this colour bear, in this scene? Nearly the same ones show elsewhere."""
    scene, rng = _scene(script), script.rng
    fill, text = rng.choice(_FILLS), code(rng, split)
    cue = script.put(scene, _card(rng, text, fill))
    script.put(scene, _card(rng, code(rng), _other(rng, _FILLS, fill)))
    script.put(_another(script, scene), _card(rng, nearly(text, rng), fill))
    asked = f"In the scene called {scene.name}, a {fill} card with a code shows for a moment. What is the code?"
    return Asked(asked, text, "code", _of(cue))


def which_scene(script: Script, split: str) -> Asked:
    """In which scene does a word show? Others show other words."""
    scene, rng = _scene(script), script.rng
    word, *others = _words(rng, split, 3)
    cue = script.put(scene, _card(rng, word))
    for other in others:
        script.put(_another(script, scene), _card(rng, other))
    asked = f"A card with the word {word} shows in one scene only. What is that scene called, on the board in it?"
    return Asked(asked, scene.name, "text", _of(cue))


def order(script: Script, split: str) -> Asked:
    """In which order do words show?"""
    scene, rng = _scene(script), script.rng
    words = _words(rng, split, 3)
    cues = script.sequence(scene, [_card(rng, word) for word in words])
    listed = ", ".join(sorted(words))
    asked = f"In the scene called {scene.name}, cards with the words {listed} show one after the other, each for a"
    asked += " moment. In which order do they show? Answer with the words, separated by commas."
    return Asked(asked, ", ".join(words), "sequence", _of(*cues))


def count(script: Script, split: str) -> Asked:
    """How often does a lamp flash in a colour? It flashes in others too, and so do the lamps of other scenes."""
    scene, rng = _scene(script), script.rng
    number, colour = rng.randint(2, 5), rng.choice(_LIT)
    things: list[Thing] = [Lamp(colour)] * number
    things += [Lamp(_other(rng, _LIT, colour)) for _ in range(rng.randint(1, 2))]
    rng.shuffle(things)
    flash = min(_FLASH, script.shown)
    cues = script.burst(scene, things, flash, _DARK)
    script.burst(_another(script, scene), [Lamp(colour)] * rng.randint(1, 4), flash, _DARK)
    asked = f"In the scene called {scene.name}, the lamp flashes several times in a row, in several colours. How often"
    asked += f" does it flash {colour}?"
    return Asked(asked, str(number), "integer", ((cues[0].start, cues[-1].end),))


def state(script: Script, split: str) -> Asked:
    """Which colour does a door have for a while?"""
    scene, rng = _scene(script), script.rng
    colour = _other(rng, tuple(COLOURS), scene.door)
    cue = script.put(scene, Door(colour))
    script.put(scene, Lamp(_other(rng, _LIT, colour)))
    elsewhere = _another(script, scene)
    script.put(elsewhere, Door(_other(rng, tuple(COLOURS), elsewhere.door, colour)))
    asked = f"In the scene called {scene.name}, the door, usually {scene.door}, has another colour for a moment."
    return Asked(f"{asked} Which colour? One of {', '.join(COLOURS)}.", colour, "colour", _of(cue))


def after(script: Script, split: str) -> Asked:
    """Which word shows first after a lamp was lit in a colour?"""
    scene, rng = _scene(script), script.rng
    words, colour = _words(rng, split, 3), rng.choice(_LIT)
    things: list[Thing] = [_card(rng, words[0]), Lamp(colour), _card(rng, words[1]), _card(rng, words[2])]
    cues = script.sequence(scene, things)
    script.put(_another(script, scene), Lamp(colour))
    asked = f"In the scene called {scene.name}, the lamp is lit {colour} once. Which word stands on the first card"
    return Asked(f"{asked} with a word that shows there after that?", words[1], "text", _of(cues[1], cues[2]))


def when_card(script: Script, split: str) -> Asked:
    """When does a code show? Nearly the same ones show at other times."""
    rng, text = script.rng, code(script.rng, split)
    scene = _scene(script)
    cue = script.put(scene, _card(rng, text))
    script.put(scene, _card(rng, nearly(text, rng)))
    script.put(_another(script, scene), _card(rng, nearly(text, rng)))
    asked = f"When does a card with the code {text} show in the scene called {scene.name}?"
    return Asked(f"{asked} {_SPAN}", cue.span, "span", _of(cue))


def when_lamp(script: Script, split: str) -> Asked:
    """When is a lamp lit in a colour? It is lit in another at another time."""
    scene, rng = _scene(script), script.rng
    colour = rng.choice(_LIT)
    cue = script.put(scene, Lamp(colour))
    script.put(scene, Lamp(_other(rng, _LIT, colour)))
    script.put(_another(script, scene), Lamp(colour))
    asked = f"When is the lamp in the scene called {scene.name} lit {colour}?"
    return Asked(f"{asked} {_SPAN}", cue.span, "span", _of(cue))


KINDS: dict[str, Ask] = {
    "read-code": read_code,
    "which-scene": which_scene,
    "order": order,
    "count": count,
    "state": state,
    "after": after,
    "when-card": when_card,
    "when-lamp": when_lamp,
}
"""Kinds of question by name."""

_SPAN = "Answer with its start and end in seconds from the start of the video, as [start, end]."


def stray(script: Script, asked: Asked) -> Thing:
    """Something that may show anywhere and decides no answer: a card with a code that nobody asks for."""
    rng = script.rng
    text = code(rng)
    if asked.answer_type == "code" and rng.random() < 0.5:
        text = nearly(str(asked.answer), rng)
    return _card(rng, text, "black")


def _scene(script: Script) -> Scene:
    return script.rng.choice(script.scenes)


def _another(script: Script, scene: Scene) -> Scene:
    return script.rng.choice([one for one in script.scenes if one is not scene])


def _card(rng: Random, text: str, fill: str = "") -> Card:
    return Card(text, fill or rng.choice(_FILLS), rng.randrange(3))


def _other(rng: Random, names: Sequence[str], *but: str) -> str:
    return rng.choice([name for name in names if name not in but])


def _words(rng: Random, split: str, number: int) -> list[str]:
    return rng.sample(WORDS_OF[split], number)


def _of(*cues: Cue) -> tuple[tuple[int, int], ...]:
    return tuple((cue.start, cue.end) for cue in cues)


def seconds(spans: tuple[tuple[int, int], ...]) -> list[list[float]]:
    """Spans of frames as [start, end] in seconds."""
    return [[start / FPS, end / FPS] for start, end in spans]
