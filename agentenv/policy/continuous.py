"""Sampling the turns of a local model as they come: a turn joins those that run already between two of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from msgspec import Struct

from agentenv.policy.batching import Job, Row
from agentenv.policy.sampling import Sampler, joinable

_SEEING = frozenset({"llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
"""Kinds of models whose pictures matter to the prompt's own forward pass only, and to the places of later tokens."""


def unsupported(model: Any, sees: bool) -> str:
    """Why turns cannot join the running ones of a model; empty where they can.

    What was computed of a turn is moved within the batch. That is sound where all of it is keys and values of every
    token, and where each token's place can be said; a window that slides or a recurrent state is not of that kind.

    Args:
        model: a causal language model.
        sees: it is given pictures.
    """
    import inspect

    kind = str(getattr(model.config, "model_type", ""))
    if getattr(model.config, "is_encoder_decoder", False):
        return f"{kind} has an encoder"
    if sees and kind not in _SEEING:
        return f"the pictures of {kind} were not tried in a batch that changes"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return f"{kind} takes no places of tokens (position_ids)"
    from transformers.cache_utils import DynamicLayer

    if any(type(layer) is not DynamicLayer for layer in _cache(model).layers):
        return f"{kind} keeps more of a turn, or less, than keys and values of every token"
    return ""


class Turn(Struct, eq=False):
    """A turn in hand: what was sampled of it so far."""

    number: int
    job: Job
    generator: Any
    ids: list[int]
    logprobs: list[float]


class Continuous:
    """Samples turns of which others begin and end meanwhile; see `agentenv.policy.batching.Stepper`.

    Prompts that come in together and are the same, as those of a group are, are computed once.

    Args:
        sampler: says how tokens are drawn and where turns end.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler, self._numbers = sampler, count()
        self._turns: list[Turn] = []
        self._batch: _Batch | None = None

    def join(self, jobs: Sequence[Job]) -> list[int]:
        """Compute the prompts of more turns and put these beside the others. Numbers them."""
        import torch

        turns = [Turn(next(self._numbers), job, self._sampler.generator(job), [], []) for job in jobs]
        made: list[tuple[list[int], _Batch]] = []
        with torch.inference_mode():
            for places in joinable(jobs):
                made.append((places, self._computed([jobs[place] for place in places])))
            for places, batch in made:
                self._batch = batch if self._batch is None else self._batch.beside(batch)
                self._turns += [turns[place] for place in places]
        return [turn.number for turn in turns]

    def step(self) -> list[tuple[int, Row]]:
        """Draw a token for each turn, give those that ended, and compute what comes after the others."""
        import torch

        assert self._batch is not None
        with torch.inference_mode():
            noisy, values = self._sampler.drawn(self._batch.scores, [turn.generator for turn in self._turns])
            tokens = noisy.argmax(dim=-1)
            ended = {}
            for turn, token, value in zip(self._turns, tokens.tolist(), values.tolist(), strict=True):
                turn.ids.append(token)
                turn.logprobs.append(value)
                if row := self._ended(turn):
                    ended[turn.number] = row
            if ended:
                tokens = self._keep([turn.number not in ended for turn in self._turns], tokens)
            if self._batch is not None:
                self._batch.advance(self._sampler.model, tokens)
        return list(ended.items())

    def drop(self, numbers: Sequence[int]) -> None:
        """Let go of turns."""
        self._keep([turn.number not in numbers for turn in self._turns])

    def _computed(self, jobs: Sequence[Job]) -> _Batch:
        """The batch of new turns, each different prompt computed once."""
        first: dict[Any, int] = {}
        names = [(tuple(job.prompt), job.media) for job in jobs]
        rows = [first.setdefault(name, len(first)) for name in names]
        unlike = [jobs[names.index(name)] for name in first]
        batch = _Batch.of(self._sampler, unlike)
        return batch if len(unlike) == len(jobs) else batch.chosen(rows)

    def _ended(self, turn: Turn) -> Row | None:
        why = "stop" if turn.ids[-1] in self._sampler.ends else self._sampler.stopped(turn.job, turn.ids)
        if not why and len(turn.ids) >= self._sampler.max_new_tokens:
            why = "length"
        return self._sampler.row(turn.ids, turn.logprobs, (len(turn.ids), why)) if why else None

    def _keep(self, kept: list[bool], tokens: Any = None) -> Any:
        """Go on with some of the turns, and their tokens."""
        rows = [row for row, keep in enumerate(kept) if keep]
        self._turns = [self._turns[row] for row in rows]
        self._batch = self._batch.chosen(rows) if rows and self._batch is not None else None
        return tokens if tokens is None else tokens[rows]


class _Batch:
    """What was computed of some turns, in rows.

    Args:
        cache: keys and values of each layer, (rows, heads, tokens, size); shorter rows begin with padding.
        mask: which of the tokens count, (rows, tokens).
        shift: what is added to the places of later tokens, (rows, 1): pictures take fewer places than tokens.
        scores: of the next token, (rows, vocabulary).
    """

    def __init__(self, cache: Any, mask: Any, shift: Any, scores: Any) -> None:
        self.cache, self.mask, self.shift, self.scores = cache, mask, shift, scores

    @classmethod
    def of(cls, sampler: Sampler, jobs: Sequence[Job]) -> _Batch:
        """Compute prompts."""
        import torch

        model = sampler.model
        ids, mask = sampler.padded(jobs)
        beside = sampler.joined(jobs, ids.shape[1])
        shift = torch.zeros(len(jobs), 1, dtype=torch.long, device=ids.device)
        # Models that give pictures their own places find them themselves; the others would count the padding.
        moves = bool(beside) and hasattr(getattr(model, "model", None), "rope_deltas")
        if not moves:
            beside["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = _cache(model)
        out = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **beside
        )
        return cls(cache, mask, model.model.rope_deltas + shift if moves else shift, out.logits[:, -1])

    def advance(self, model: Any, tokens: Any) -> None:
        """Compute one more token of each row."""
        import torch

        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        places = self.mask.sum(-1, keepdim=True) - 1 + self.shift
        out = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.scores = out.logits[:, -1]

    def chosen(self, rows: list[int]) -> _Batch:
        """Some of the rows, or rows more than once, without padding that none of them needs."""
        mask = self.mask[rows]
        spare = int(mask.any(dim=0).long().argmax())
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows][:, :, spare:], layer.values[rows][:, :, spare:]
        return _Batch(self.cache, mask[:, spare:], self.shift[rows], self.scores[rows])

    def beside(self, other: _Batch) -> _Batch:
        """These rows and, below them, others."""
        import torch

        width = max(self.mask.shape[1], other.mask.shape[1])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([_wide(mine.keys, width), _wide(theirs.keys, width)])
            mine.values = torch.cat([_wide(mine.values, width), _wide(theirs.values, width)])
        masks = [_wide(batch.mask[:, None, :, None], width)[:, 0, :, 0] for batch in (self, other)]
        shift, scores = torch.cat([self.shift, other.shift]), torch.cat([self.scores, other.scores])
        return _Batch(self.cache, torch.cat(masks), shift, scores)


def _cache(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _wide(tensor: Any, width: int) -> Any:
    """The tensor with padding before its tokens, its third axis."""
    from torch.nn.functional import pad

    return pad(tensor, (0, 0, width - tensor.shape[2], 0))
