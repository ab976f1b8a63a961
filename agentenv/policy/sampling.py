"""Sampling a batch of turns with transformers' `generate`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agentenv.policy.batching import Job, Row

_ALONG_TOKENS = "token_type_ids"


class Sampler:
    """Samples rows of a batch, each with its own seed, stop strings and end.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer.
        max_new_tokens: most tokens in a row.
        temperature, top_p, top_k: 0 is greedy; 1.0 and 0 leave all tokens in.
        banned: tokens that are never sampled; log-probabilities are those without them.
        ends: more tokens that end a turn.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int,
        banned: Sequence[int] = (),
        ends: Iterable[int] = (),
    ) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.temperature, self.top_p, self.top_k = temperature, top_p, top_k
        self.ends = ends_of(model, tokenizer) | frozenset(ends)
        self.banned = [token for token in banned if token not in self.ends]
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.ends, default=0)
        self._warpers = _warpers(top_p, top_k)
        self.context: int = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        """Tokens that prompt and turn may have together."""

    def sample(self, jobs: Sequence[Job]) -> list[Row]:
        """One row a job, in their order. Runs in the worker thread."""
        rows: dict[int, Row] = {}
        for places in joinable(jobs):
            rows |= zip(places, self._sample([jobs[place] for place in places]), strict=True)
        return [rows[place] for place in range(len(jobs))]

    def _sample(self, jobs: Sequence[Job]) -> list[Row]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        ids, mask = self.padded(jobs)
        draw = _Draw(self, jobs)
        until = _Until(self, jobs, ids.shape[1])
        limit = min(self.max_new_tokens, self.context - min(len(job.prompt) for job in jobs))
        config = GenerationConfig(
            max_new_tokens=limit, do_sample=False, pad_token_id=self.pad, eos_token_id=sorted(self.ends) or None
        )
        with torch.inference_mode(), _without_defaults(self.model, config):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **self.joined(jobs, ids.shape[1]),
                generation_config=config,
                logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList([until]),
            )
        made = out[:, ids.shape[1] :].tolist()
        return [self.row(row, draw.logprobs[i], until.stopped[i]) for i, row in enumerate(made)]

    def padded(self, jobs: Sequence[Job]) -> tuple[Any, Any]:
        """Prompts with padding before them, and the mask that tells the two apart; both (jobs, tokens)."""
        import torch

        width = max(len(job.prompt) for job in jobs)
        ids = [[self.pad] * (width - len(job.prompt)) + job.prompt for job in jobs]
        mask = [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs]
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def joined(self, jobs: Sequence[Job], width: int) -> dict[str, Any]:
        """The tensors beside the ids: those along the tokens padded as the ids are, the others one after the other."""
        import torch

        given = [job.tensors or {} for job in jobs]
        joined = {}
        for name in dict.fromkeys(name for tensors in given for name in tensors):
            if name.endswith(_ALONG_TOKENS):
                made = torch.zeros(len(jobs), width, dtype=torch.long)
                for row, tensors in zip(made, given, strict=True):
                    if name in tensors:
                        row[width - tensors[name].shape[1] :] = tensors[name][0]
            else:
                made = torch.cat([tensors[name] for tensors in given if name in tensors])
            made = made.to(self.model.dtype) if made.is_floating_point() else made
            joined[name] = made.to(self.model.device)
        return joined

    def drawn(self, scores: Any, generators: Sequence[Any]) -> tuple[Any, Any]:
        """Makes the greedy choice a sample: adds Gumbel noise from each row's own generator.

        The largest of log p_i + g_i, with g_i standard Gumbel, is i with probability p_i (the "Gumbel-max trick";
        Gumbel, Statistical Theory of Extreme Values, 1954). So rows need no common random state.

        Args:
            scores: of the model, shape (rows, vocabulary).
            generators: one for each row.

        Returns:
            Scores of which the largest is the choice, of the same shape, and its log-probability, shape (rows,).
        """
        import torch

        scores = scores.float() / (self.temperature or 1.0)
        if self.banned:
            scores[:, self.banned] = -torch.inf
        for warper in self._warpers:
            scores = warper(None, scores)
        logprobs = torch.log_softmax(scores, dim=-1)
        noisy = logprobs + _noise(logprobs, generators) if self.temperature else logprobs
        return noisy, logprobs.gather(1, noisy.argmax(dim=-1, keepdim=True)).squeeze(1)

    def generator(self, job: Job) -> Any:
        """The source of randomness of a job."""
        import torch

        return torch.Generator(device=self.model.device).manual_seed(job.seed)

    def stopped(self, job: Job, made: list[int]) -> str:
        """Why a turn ends that so far is `made`: "stop" at a stop string, "length" at the context; "" where it goes on.

        The prompt may hold stop strings: only what was sampled is looked at.
        """
        if job.stop:
            # A token holds at least one byte, so the last so many tokens hold any stop string that the last one ended.
            window = max(len(stop.encode()) for stop in job.stop) + 4
            tail = self.tokenizer.decode(made[-window:], skip_special_tokens=False)
            if any(stop in tail for stop in job.stop):
                return "stop"
        return "length" if len(job.prompt) + len(made) >= self.context else ""

    def row(self, ids: list[int], logprobs: list[float], stopped: tuple[int, str] | None) -> Row:
        """A turn out of what was sampled, cut behind its end.

        Args:
            ids: as they were sampled.
            logprobs: one for each.
            stopped: after how many it was stopped, and why.
        """
        count, finish = stopped or (len(ids), "length")
        for index, token in enumerate(ids[:count]):
            if token in self.ends:
                count, finish = index + 1, "stop"
                break
        kept = ids[:count]
        closed = kept[:-1] if kept and kept[-1] in self.ends else kept
        text: str = self.tokenizer.decode(closed, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Row(text, tuple(kept), tuple(logprobs[:count]), finish)


class _Draw:
    """A logits processor that makes the greedy choice a sample, and keeps the log-probabilities of what was chosen."""

    def __init__(self, sampler: Sampler, jobs: Sequence[Job]) -> None:
        self.sampler = sampler
        self.generators = [sampler.generator(job) for job in jobs]
        self.logprobs: list[list[float]] = [[] for _ in jobs]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        noisy, chosen = self.sampler.drawn(scores, self.generators)
        for row, value in zip(self.logprobs, chosen.tolist(), strict=True):
            row.append(value)
        return noisy


def _noise(scores: Any, generators: Sequence[Any]) -> Any:
    import torch

    noise = torch.empty_like(scores)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    # A zero would win against every other token, even one that top_k has ruled out.
    return -noise.clamp_(min=torch.finfo(noise.dtype).tiny).log()


class _Until:
    """A stopping criterion that ends each row at its own stop strings and at the model's context."""

    def __init__(self, sampler: Sampler, jobs: Sequence[Job], width: int) -> None:
        self.sampler, self.jobs, self.width = sampler, jobs, width
        self.stopped: list[tuple[int, str] | None] = [None] * len(jobs)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        made = input_ids[:, self.width :].tolist()  # once: each row of its own would be a wait for the device
        for index, (job, ids) in enumerate(zip(self.jobs, made, strict=True)):
            if self.stopped[index] is None and (why := self.sampler.stopped(job, ids)):
                self.stopped[index] = (len(ids), why)
        return torch.tensor([stopped is not None for stopped in self.stopped], device=input_ids.device)


def _warpers(top_p: float, top_k: int) -> list[Any]:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    made: list[Any] = [TopKLogitsWarper(top_k)] if top_k else []
    return [*made, TopPLogitsWarper(top_p)] if top_p < 1 else made


def joinable(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs can be sampled in one batch.

    Patches with a grid beside them say themselves whose they are. Other pixels are told apart by their shape, so a
    batch takes prompts with as many images of the same size.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        beside = {name: tensor for name, tensor in (job.tensors or {}).items() if not name.endswith(_ALONG_TOKENS)}
        free = any(name.endswith("grid_thw") for name in beside)
        key = () if free else tuple((name, tuple(tensor.shape)) for name, tensor in sorted(beside.items()))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


@contextmanager
def _without_defaults(model: Any, config: Any) -> Iterator[None]:
    """The model's own generation settings (penalties, suppressed tokens ...) would be added to what was asked for."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a turn: those of the model's generation settings and the tokenizer's own."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = list(found) if isinstance(found, (list, tuple)) else [found]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
