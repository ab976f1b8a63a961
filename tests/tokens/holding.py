"""What must hold of every record that was played with token ids."""

from __future__ import annotations

from agentenv import tokens as t
from agentenv.trajectory import Trajectory
from tests.tokens.monkey import Monkey


def invariants(record: Trajectory, policy: Monkey) -> None:
    """I1 to I4 and I6 of a record whose stream never forked: joined ids, mask, log-probabilities, text, one stream."""
    (segments,) = t.streams(record)
    t.check(segments)
    sampled = [segment for segment in segments if segment.sampled]
    assert [(segment.ids, segment.version) for segment in sampled] == [
        (ids, f"w{n + 1}") for n, ids in enumerate(policy.sampled)
    ]
    assert len(record.calls) == len(policy.prompts)
    for call, prompt in zip(record.calls, policy.prompts, strict=True):
        before = [segment for segment in segments if segment.node < call.node]
        assert tuple(t.flat(before).ids) == prompt
        _text(record, call.node, policy)
    flat = t.flat(segments)
    assert flat.mask == [int(segment.sampled) for segment in segments for _ in segment.ids]
    assert flat.logprobs is not None
    assert [value != 0.0 for value in flat.logprobs] == [bool(mask) for mask in flat.mask]


def _text(record: Trajectory, index: int, policy: Monkey) -> None:
    """The raw text is what the ids say; broken UTF-8 reads the same on both sides. (Encoding it may give other ids.)"""
    node = record.nodes[index]
    assert node.tokens is not None
    words = policy.renderer.tokenizer
    said = words.decode(list(node.tokens.ids), skip_special_tokens=False).encode("utf-8", "replace")
    raw = (node.message.raw or "").encode("utf-8", "replace")
    ends = {word.encode() for word in words.convert_ids_to_tokens(sorted(policy.renderer.ends))}
    assert said[: len(raw)] == raw or record.env.dialect == "native"  # the calls stand beside the text there
    assert said[len(raw) :] in {b"", *ends} or record.env.dialect == "native"
