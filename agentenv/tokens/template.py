"""Rendering by a model's chat template, appended to what is there: nothing that was sampled is written again.

What follows a turn is taken from the rendering of a stand-in conversation: whatever the template writes after the
stand-in's turn. That is the same for every conversation only where the template never goes back on what it wrote
before, so this is proven with marked conversations when the renderer is made (`agentenv.tokens.proof`).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from agentenv.errors import ConfigError, PolicyError
from agentenv.tokens.proof import Chat, Turns, kind_of, proven, stand_in
from agentenv.tokens.renderer import Eyes, chat, media_of
from agentenv.types import Image, Message, Tokens, ToolSpec, Video

_REMEMBERED = 256


class TemplateRenderer:
    """Renders with a tokenizer and a chat template.

    Args:
        tokenizer: of the model; a tokenizer of transformers, or whatever can `apply_chat_template` and be called.
        template: the chat template; by default the tokenizer's own.
        eyes: what the model makes of media; None for a model that takes none.
        ends: more ids that end a turn, beside the tokenizer's end token.
        options: more variables for the template, for instance {"enable_thinking": False}.
        forks: a template that is not proven for any dialect may do: conversations are then rendered anew.
        name: of the model, for error texts.

    Raises:
        ConfigError: there is no template, it cannot be used for any dialect, or the tokenizer has no token for the end
            of a turn.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        *,
        eyes: Eyes | None = None,
        ends: Iterable[int] = (),
        options: Mapping[str, Any] | None = None,
        forks: bool = False,
        name: str = "this model",
    ) -> None:
        self.tokenizer, self.eyes, self.name = tokenizer, eyes, name
        self.template = template or getattr(tokenizer, "chat_template", None)
        if not self.template:
            raise ConfigError(f"{name} has no chat template (a base model has none); give chat_template=...")
        self._options = dict(options or {})
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Tokens] = OrderedDict()
        end = getattr(tokenizer, "eos_token_id", None)
        self.ends = frozenset((*ends, *(() if end is None else (end,))))
        self.lists = self._wants_lists()
        """The template wants the content of every message as a list."""
        self.close = Turns(self.written, self._texts(self.ends)).close
        self.ends |= {self._closing_token()}
        self.turns = Turns(self.written, self._texts(self.ends))
        self.reasons = proven(self.written, self.turns)
        """What the template is not proven for, and why (see `proof.Reasons`)."""
        if not forks and self.refusal(False) and self.refusal(True):
            raise ConfigError(self._unusable())

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the ids, as records carry it."""
        digest = hashlib.sha256(str(self.template).encode()).hexdigest()[:16]
        return {"renderer": "template", "chat_template": digest} | (
            {"template_options": self._options} if self._options else {}
        )

    # -- the two renderings -------------------------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool) -> Tokens:
        """See `Renderer.prompt`."""
        self._look_for_media(messages)
        key = msgspec.json.encode((messages, tools if native else (), native))
        known = self._known.get(key)
        if known is None:
            text = self.written(self._chat(messages, native), _tools(tools, native), opened=True)
            if native and any(tool.name not in text for tool in tools):
                raise PolicyError(
                    f"the chat template of {self.name} leaves out the tools: play in a text dialect (dialect='hermes',"
                    " say), which writes them into the system message, or give a template that knows tools",
                    permanent=True,
                )
            known = self._tokens(self.encoded(text), media_of(messages), native)
            self._remember(key, known)
        return known

    def bridge(
        self, before: Sequence[int], sampled: int, new: Sequence[Message], tools: Sequence[ToolSpec], *, native: bool
    ) -> Tokens | str:
        """See `Renderer.bridge`."""
        reason = self.refusal(native, kind_of(chat(new, native=native)))
        if reason:
            return reason
        self._look_for_media(new)
        key = msgspec.json.encode((new, "tools" if tools and native else "", native))
        known = self._known.get(key)
        if known is None:
            known = self._suffix(new, tools, native)
            self._remember(key, known)
        closed = sampled > 0 and before[-1] in self.ends
        return self._opened(known) if closed else known

    def _suffix(self, new: Sequence[Message], tools: Sequence[ToolSpec], native: bool) -> Tokens:
        """What the template writes after a turn, its end included."""
        added = self._chat(new, native)
        text = self.written([*stand_in(added), *added], _tools(tools, native), opened=True)
        tail = self.turns.after(text)
        if tail is None:
            raise PolicyError(f"the chat template of {self.name} lost a turn; this is a defect of its proof")
        return self._tokens(self.encoded(tail), media_of(new), native)

    def _opened(self, suffix: Tokens) -> Tokens:
        """The suffix without the end of the turn, which was sampled."""
        cut = next((index + 1 for index, token in enumerate(suffix.ids) if token in self.ends), 0)
        spans = tuple(replace(span, offset=span.offset - cut) for span in suffix.media)
        return replace(suffix, ids=suffix.ids[cut:], media=spans)

    def _remember(self, key: bytes, tokens: Tokens) -> None:
        with self._lock:
            self._known[key] = tokens
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def refusal(self, native: bool, kind: str = "") -> str:
        """Why what follows a turn is not certain; empty where it is.

        Args:
            native: calls travel beside the text.
            kind: what follows (see `proof.kind_of`); by default what every environment needs.
        """
        return self.reasons[native, kind or ("tool" if native else "user")]

    def _unusable(self) -> str:
        return (
            f"{self.name} cannot be played token by token: {self.refusal(False)} (text dialects); {self.refusal(True)}"
            " (native calls). Give a chat template that only appends (chat_template=...; trainers ship such variants of"
            " many templates), or allow forks=True: each turn is then rendered anew, and the record says so"
        )

    def _chat(self, messages: Sequence[Message], native: bool) -> Chat:
        return chat(messages, native=native, safe=self.eyes.safe if self.eyes else str)

    # -- text and ids -------------------------------------------------------------------------------------------------

    def written(self, messages: Chat, tools: list[dict[str, Any]] | None = None, *, opened: bool = False) -> str:
        """The conversation as the template writes it.

        Raises:
            PolicyError: the template refuses it.
        """
        import jinja2

        if self.lists:
            messages = [message | {"content": _listed(message["content"])} for message in messages]
        try:
            with self._lock:
                made: str = self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=self.template,
                    add_generation_prompt=opened,
                    tokenize=False,
                    **self._options,
                )
        except (jinja2.TemplateError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            said = str(error) or type(error).__name__
            raise PolicyError(f"the chat template of {self.name} refuses the conversation: {said}") from None
        return made

    def encoded(self, text: str) -> tuple[int, ...]:
        """The ids of a text, control tokens read as such, nothing added."""
        with self._lock:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without the token that ended the turn."""
        kept = ids[:-1] if ids and ids[-1] in self.ends else ids
        with self._lock:
            text: str = self.tokenizer.decode(list(kept), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _wants_lists(self) -> bool:
        """Whether the template writes a text only where it stands in a list."""
        probe: Chat = [{"role": "user", "content": "probe"}]
        for self.lists in (False, True):
            try:
                if "probe" in self.written(probe):
                    return self.lists
            except PolicyError:
                continue
        return False

    def _texts(self, ids: Iterable[int]) -> tuple[str, ...]:
        found: list[Any] = [self.tokenizer.convert_ids_to_tokens(token) for token in sorted(ids)]
        return tuple(text for text in found if isinstance(text, str) and text)

    def _closing_token(self) -> int:
        """The token with which the template ends a turn; the model may sample it."""
        ids = self.encoded(self.close)
        if ids and (ids[-1] in self.ends or (len(ids) == 1 and self._control(ids[0]))):
            return ids[-1]
        raise ConfigError(
            f"the chat template of {self.name} ends a turn with {self.close!r}, for which its tokenizer has no token of"
            " its own: a model could never end a turn. Add it to the tokenizer as a special token, name the token that"
            " ends a turn (end_tokens=[id]), or give the chat template that belongs to this tokenizer"
        )

    def _control(self, token: int) -> bool:
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return token in added or token in getattr(self.tokenizer, "all_special_ids", ())

    # -- media --------------------------------------------------------------------------------------------------------

    def _look_for_media(self, messages: Sequence[Message]) -> None:
        for message in messages:
            for part in message.parts:
                if isinstance(part, (Image, Video)):
                    kind = type(part).__name__.lower()
                    if self.eyes is None:
                        raise PolicyError(
                            f"this policy is text-only; {kind} part found: {self.name} has no processor for {kind}s."
                            " Give a model that has one, or play an environment without them",
                            permanent=True,
                        )
                    if kind not in self.eyes.tokens:
                        seen = ", ".join(self.eyes.tokens)
                        raise PolicyError(f"this policy sees {seen}s, not {kind}s (video='video')", permanent=True)

    def _tokens(self, ids: tuple[int, ...], media: Sequence[Image | Video], native: bool) -> Tokens:
        if self.eyes is None:
            return Tokens(ids)
        kinds = {token: kind for kind, token in self.eyes.tokens.items()}
        places = [index for index, token in enumerate(ids) if token in kinds]
        found = [kinds[ids[place]] for place in places]
        wanted = [type(part).__name__.lower() for part in media]
        for kind, token in self.eyes.tokens.items():
            if found.count(kind) != wanted.count(kind):
                text = self._mismatch(kind, token, found.count(kind), wanted.count(kind), native)
                raise PolicyError(text, permanent=True)
        if found != wanted:
            text = f"the chat template of {self.name} changes the order of images and videos"
            raise PolicyError(text, permanent=True)
        spans = [replace(self.eyes.look(part), offset=place) for place, part in zip(places, media, strict=True)]
        return Tokens(ids, media=tuple(spans))

    def _mismatch(self, kind: str, token: int, found: int, wanted: int, native: bool) -> str:
        (text,) = self._texts([token])
        said = f"the chat template of {self.name} wrote {found} {kind} placeholder(s) {text} for {wanted} {kind}(s)"
        if native and found < wanted:
            said += f"; some templates drop {kind}s in messages of role tool: play with a text dialect"
            said += " (dialect='hermes' ...), in which results are user turns"
        return said


def _listed(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _tools(tools: Sequence[ToolSpec], native: bool) -> list[dict[str, Any]] | None:
    return [tool.openai() for tool in tools] if native and tools else None
