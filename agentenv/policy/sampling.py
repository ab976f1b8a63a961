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
        self.context: int = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
        """Tokens that prompt and turn may have together."""

    def sample(self, jobs: Sequence[Job]) -> list[Row]:
        """One row a job, in their order. Runs in the worker thread."""
        rows: dict[int, Row] = {}
        for places in _joinable(jobs):
            rows |= zip(places, self._sample([jobs[place] for place in places]), strict=True)
        return [rows[place] for place in range(len(jobs))]

    def _sample(self, jobs: Sequence[Job]) -> list[Row]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        ids, mask = self._padded(jobs)
        draw = _Draw(self, jobs, self.model.device)
        until = _Until(self, jobs, ids.shape[1])
        limit = min(self.max_new_tokens, self.context - min(len(job.prompt) for job in jobs))
        config = GenerationConfig(
            max_new_tokens=limit, do_sample=False, pad_token_id=self.pad, eos_token_id=sorted(self.ends) or None
        )
        with torch.inference_mode(), _without_defaults(self.model, config):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **self._joined(jobs, ids.shape[1]),
                generation_config=config,
                logits_processor=LogitsProcessorList([draw]),
                stopping_criteria=StoppingCriteriaList([until]),
            )
        made = out[:, ids.shape[1] :].tolist()
        return [self._row(row, draw.logprobs[i], until.stopped[i]) for i, row in enumerate(made)]

    def _padded(self, jobs: Sequence[Job]) -> tuple[Any, Any]:
        import torch

        width = max(len(job.prompt) for job in jobs)
        ids = [[self.pad] * (width - len(job.prompt)) + job.prompt for job in jobs]
        mask = [[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs]
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _joined(self, jobs: Sequence[Job], width: int) -> dict[str, Any]:
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

    def _row(self, ids: list[int], logprobs: list[float], stopped: tuple[int, str] | None) -> Row:
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
    """A logits processor that makes the greedy choice a sample: it adds Gumbel noise from each row's own generator.

    The largest of log p_i + g_i, with g_i standard Gumbel, is i with probability p_i (the "Gumbel-max trick"; Gumbel,
    Statistical Theory of Extreme Values, 1954). So rows need no common random state.
    """

    def __init__(self, sampler: Sampler, jobs: Sequence[Job], device: Any) -> None:
        import torch
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        self.sampler = sampler
        self.generators = [torch.Generator(device=device).manual_seed(job.seed) for job in jobs]
        self.logprobs: list[list[float]] = [[] for _ in jobs]
        self.warpers: list[Any] = [TopKLogitsWarper(sampler.top_k)] if sampler.top_k else []
        self.warpers += [TopPLogitsWarper(sampler.top_p)] if sampler.top_p < 1 else []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        temperature = self.sampler.temperature
        scores = scores.float() / (temperature or 1.0)
        if self.sampler.banned:
            scores[:, self.sampler.banned] = -torch.inf
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        logprobs = torch.log_softmax(scores, dim=-1)
        noisy = logprobs + self._noise(logprobs) if temperature else logprobs
        chosen = logprobs.gather(1, noisy.argmax(dim=-1, keepdim=True)).squeeze(1).tolist()
        for row, value in zip(self.logprobs, chosen, strict=True):
            row.append(value)
        return noisy

    def _noise(self, scores: Any) -> Any:
        import torch

        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        # A zero would win against every other token, even one that top_k has ruled out.
        return -noise.clamp_(min=torch.finfo(noise.dtype).tiny).log()


class _Until:
    """A stopping criterion that ends each row at its own stop strings and at the model's context.

    It looks at what was sampled only: the prompt may hold stop strings.
    """

    def __init__(self, sampler: Sampler, jobs: Sequence[Job], width: int) -> None:
        self.sampler, self.jobs, self.width = sampler, jobs, width
        self.stopped: list[tuple[int, str] | None] = [None] * len(jobs)
        # A token holds at least one byte, so the last so many tokens hold any stop string that the last one ended.
        self.windows = [max((len(stop.encode()) for stop in job.stop), default=0) + 4 for job in jobs]

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        count = input_ids.shape[1] - self.width
        for index, job in enumerate(self.jobs):
            if self.stopped[index] is None:
                self._look(index, job, input_ids[index, self.width :], count)
        return torch.tensor([stopped is not None for stopped in self.stopped], device=input_ids.device)

    def _look(self, index: int, job: Job, made: Any, count: int) -> None:
        if job.stop:
            tail = self.sampler.tokenizer.decode(made[-self.windows[index] :].tolist(), skip_special_tokens=False)
            if any(stop in tail for stop in job.stop):
                self.stopped[index] = (count, "stop")
                return
        if len(job.prompt) + count >= self.sampler.context:
            self.stopped[index] = (count, "length")


def _joinable(jobs: Sequence[Job]) -> list[list[int]]:
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
