"""What the presets share: putting an environment together, tools as checkpoints know them, and scorers side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, get_args

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.env import Env
from agentenv.envs.rewards import boxed
from agentenv.envs.zoom.answers import zoom_match
from agentenv.envs.zoom.datasets import DATASETS, from_columns
from agentenv.envs.zoom.tasks import zoom_tasks
from agentenv.envs.zoom.toolbox import zoom_steps
from agentenv.errors import UnknownNameError
from agentenv.media import EpisodeMedia, decode_cache, media_store
from agentenv.reward import Component, Rubric
from agentenv.rules import TokenCount, estimate_tokens
from agentenv.spec import Limits, Texts, settings
from agentenv.task import TaskSet
from agentenv.tool import Tool
from agentenv.tools.image import Frame, Output, first_view
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Part, Task, Text, ToolSpec

Variant = Literal["strict", "upstream"]
"""strict: what a system means to do. upstream: what its released code does, defects included."""

Crops = Literal["train", "eval"]
Steps = Callable[[Task, Image], list[dict[str, Any]]]
_FIELD = re.compile(r"\{(question|size|suffix)\}")


def known(what: str, value: str, names: Any) -> None:
    """Refuse a word that is none of a Literal's.

    Raises:
        UnknownNameError: the nearest known word is named.
    """
    if value not in get_args(names):
        raise UnknownNameError(what, value, get_args(names))


def given_tasks(source: str | TaskSet, seed: int, difficulty: int | None, split: str) -> TaskSet:
    """Generated scenes that need zooming, a data set that the zoom environment reads, or the caller's own tasks.

    Raises:
        UnknownNameError: there is no such source.
    """
    if isinstance(source, TaskSet):
        return source
    if source == "scenes":
        return zoom_tasks(seed, difficulty, split=split)  # type: ignore[arg-type]  # checked there
    name, found, path = source.partition(":")
    if found and name in DATASETS:
        return DATASETS[name](path)
    if "." not in source:
        raise UnknownNameError("source of tasks", source, ("scenes", *(f"{known}:PATH" for known in DATASETS)))
    return from_columns(source)


def rule(text: str | None, reference: Any, metadata: Mapping[str, Any] | None = None) -> float:
    r"""The rule that scores where no judge is: `zoom_match`, of what stands in `\boxed{}` where there is one."""
    return zoom_match((boxed(text) or text) if text is not None else None, reference, metadata)


def asked(tasks: TaskSet, form: str, view: Output | None = None, steps: Steps | None = None) -> TaskSet:
    """The tasks as a system asks them: images first, then the text of `form`.

    Args:
        tasks: prompts of images and text.
        form: what the user says, with {question}, and the {size} and file {suffix} of the first image.
        view: how large an image is shown at first; None as it is. Zooming into it reads the original.
        steps: what an expert does for the task's evidence boxes, for the `reference` policy to play.
    """

    def ask(task: Task) -> Task:
        images = [_first(part, view) for part in task.prompt if isinstance(part, Image)]
        texts = [part.text for part in task.prompt if isinstance(part, Text)]
        question = neutralise("\n".join(texts).strip())[0]
        size = f"{images[0].width}x{images[0].height}" if images else ""
        suffix = "png" if images and images[0].mime == "image/png" else "jpg"
        fields = {"question": question, "size": size, "suffix": suffix}
        prompt: tuple[Part, ...] = (*images, Text(_FIELD.sub(lambda found: fields[found[1]], form)))
        evidence = task.evidence
        if steps is not None and images and evidence.get("boxes") and "steps" not in evidence:
            evidence = {**evidence, "steps": steps(task, images[0])}
        return replace(task, prompt=prompt, evidence=evidence, metadata={"question": question, **task.metadata})

    return tasks.map(ask)


def zooms(frame: Frame, tool: str, **more: Any) -> Steps:
    """An expert's steps: one call of the zoom tool for each evidence box, with `more` arguments."""

    def steps(task: Task, image: Image) -> list[dict[str, Any]]:
        plain = zoom_steps(task, image, frame, tool=tool, which="")
        return [{**step, "arguments": {**step["arguments"], **more}} for step in plain]

    return steps


def _first(image: Image, view: Output | None) -> Image:
    return image if view is None else first_view(media_store(), decode_cache(), image, view)


def compose(
    *,
    id: str,
    tasks: TaskSet,
    tools: Sequence[Tool],
    dialect: str,
    dialect_options: Mapping[str, Any],
    system: str,
    limits: Limits | Mapping[str, Any] | None,
    default_limits: Limits,
    rubric: Rubric,
    frame: str,
    seed: int,
    render_mode: str | None,
    aliases: Mapping[str, str] | None = None,
    bind: Callable[[Task], Mapping[str, Any]] | None = None,
    count: TokenCount = estimate_tokens,
    texts: Texts | None = None,
) -> Env:
    """The environment of a preset.

    `limits` of the caller replace the preset's as a whole, or field by field. `bind` makes what the tools are bound
    to: the media of the prompt by default, under `aliases` too. The other arguments are those of `Env`.
    """

    def prompt_media(task: Task) -> Mapping[str, Any]:
        return {"media": EpisodeMedia(task.prompt, aliases=aliases)}

    return Env(
        id=id,
        tasks=tasks,
        tools=tools,
        dialect=dialect,
        dialect_options=dialect_options,
        system=system,
        limits=settings(Limits, limits, default_limits),
        texts=texts or Texts(),
        rubric=rubric,
        bind=bind or prompt_media,
        frame=frame,
        count=count,
        seed=seed,
        render_mode=render_mode,
    )


# -- tools -------------------------------------------------------------------------------------------------------------


def restated(tool: Tool, description: str, parameters: Mapping[str, Any]) -> Tool:
    """The tool as a checkpoint knows it: this description and this schema, to the letter. What it accepts stays.

    Args:
        tool: its arguments are validated as before, by its own signature.
        description: what the model reads.
        parameters: the JSON schema that the model reads.
    """
    # `spec` is a cached property, so this is where a value that was computed would stand.
    tool.__dict__["spec"] = ToolSpec(tool.name, description, dict(parameters), tool.version)
    return tool


def adapted(tool: Tool, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Tool:
    """The tool with its arguments changed, once they are valid and bound, before it runs."""

    @wraps(tool.fn)
    def run(**given: Any) -> Any:
        return tool.fn(**change(given))

    return Tool(
        run,
        name=tool.name,
        timeout=tool.timeout,
        deterministic=tool.deterministic,
        version=f"{tool.version}+{change.__name__}",
    )


def box_schema(description: str, **more: Any) -> dict[str, Any]:
    """The schema of a box as these systems write it: four numbers."""
    kept = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    return {**kept, "description": description, **more}


# -- rewards -----------------------------------------------------------------------------------------------------------


def side_by_side(
    name: str,
    strict: Callable[..., Any],
    upstream: Callable[..., Any],
    weight: float,
    scoring: str,
    gate: str = "",
    scope: Literal["episode", "step", "group"] = "episode",
) -> tuple[Component, Component]:
    """Two components, `name` and `name_upstream`, of which the chosen one is rewarded and the other only recorded.

    A gate is taken on the component of the same side.
    """
    chosen = scoring == "strict"
    beside = f"{gate}_upstream" if gate else ""
    return (
        Component(name, strict, weight if chosen else 0.0, gate, scope),
        Component(f"{name}_upstream", upstream, 0.0 if chosen else weight, beside, scope),
    )


def rewarded(name: str, scoring: str) -> str:
    """Which of the two components of `side_by_side` is the rewarded one."""
    return name if scoring == "strict" else f"{name}_upstream"


def flat(trajectory: Trajectory) -> str:
    """The episode after its prompt as one string: what scorers upstream look at, tool output and all."""
    texts = []
    for node in trajectory.path():
        if node.origin == "sampled":
            texts.append(node.message.raw if node.message.raw is not None else node.message.text)
        elif texts:
            texts.append("".join(part.text if isinstance(part, Text) else "<image>" for part in node.message.parts))
    return "\n".join(texts)


def last_answer_anywhere(trajectory: Trajectory) -> str:
    """What follows the last `<answer>` of the whole transcript, whoever wrote it; all of it where there is none.

    That is how DeepEyes' scorer finds the answer (`vl_agent.py`): an episode that ends after a tool result is judged
    by the "<answer>...</answer>" of the observation's own template.
    """
    return flat(trajectory).rpartition("<answer>")[2].partition("</answer>")[0].strip()
