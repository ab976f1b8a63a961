"""The rules of an episode, as a state machine that does no I/O (the way h11 is one for HTTP).

    observation = episode.begin(now)
    while episode.stop is None:
        calls = episode.act(action)                 # what to run
        observation = episode.observe(results, now) # what the policy sees next

The machine never runs a tool, reads a clock or awaits: it is told what time it is and what the calls came to. Whatever
can be decided about an episode is decided here, once: budgets, what happens at each limit, what the policy is shown,
what is rolled back, and why the episode ends. The sync and the async driver in `env` are a few lines each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from agentenv.dialects.base import Turn
from agentenv.errors import ResetNeededError, ToolError, ToolErrorKind, did_you_mean
from agentenv.rules import LIMIT_NAMES, Counters, Rules, with_handles
from agentenv.tool import failure
from agentenv.trajectory import ModelCall, Node, Trajectory, sampled, tool_run
from agentenv.types import (
    Action,
    Budget,
    Message,
    Observation,
    StopReason,
    Task,
    Text,
    Tokens,
    ToolCall,
    ToolResult,
    count_images,
)


class Episode:
    """One episode being played.

    Args:
        rules: what the environment's episodes share.
        task: the task; its prompt opens the conversation.
        trajectory: the record, which this machine appends to.

    Attributes:
        tokens: what the record has of the messages' tokens, by the message's index.
        stop: why it ended, None while it goes on.
        answer: the policy's final answer, None where it gave none.
        leaf: index of the node that the policy saw or wrote last, -1 before the first.
        masked: a budget ended it whose policy is to keep such episodes out of the loss.
    """

    __slots__ = (
        *("_planned", "_refused", "answer", "forced", "leaf", "masked", "messages"),
        *("rules", "stop", "task", "tokens", "trajectory", "used"),
    )  # fmt: skip

    def __init__(self, rules: Rules, task: Task, trajectory: Trajectory) -> None:
        self.rules = rules
        self.task = task
        self.trajectory = trajectory
        self.messages: list[Message] = []
        self.tokens: dict[int, Tokens] = {}
        self.used = Counters()
        self.stop: StopReason | None = None
        self.forced: StopReason | None = None
        self.answer: str | None = None
        self.masked = False
        self.leaf = -1
        self._planned: tuple[ToolCall, ...] | None = None
        self._refused: dict[str, ToolResult] = {}

    def begin(self, now: float) -> Observation:
        """Open the conversation. `now` is the clock's reading in seconds, monotonic."""
        self.used.started = now
        if self.rules.system is not None:
            self._append(self.rules.system, "env")
        self._append(Message("user", with_handles(self.task.prompt)), "task")
        if self.rules.limits.tokens is not None:
            self.used.tokens = sum(self.rules.count(message) for message in self.messages)
        return self._observation(0, now)

    # -- the policy's turn ------------------------------------------------------------------------------------------

    def act(self, action: Action) -> tuple[ToolCall, ...]:
        """Take the policy's turn and say which of its calls are to be run, in order.

        Raises:
            ResetNeededError: the episode has ended, or results of the last turn are still owed.
        """
        if self.stop is not None:
            raise ResetNeededError(f"the episode has ended ({self.stop.value}): call reset()")
        if self._planned is not None:
            raise ResetNeededError("results of the last turn are owed: call observe() first")
        if action.finish_reason == "overflow":
            return self._roll_back()
        rules, used, record = self.rules, self.used, self.trajectory
        if action.context is not None:
            self._keep_context(action.context)
        used.turns += 1
        turn = rules.dialect.parse(action, used.calls)
        message = rules.dialect.assistant(action, turn)
        nodes = record.nodes
        nodes.append(sampled(message, self.leaf, action))
        self.leaf = leaf = len(nodes) - 1
        if (tokens := nodes[leaf].tokens) is not None:
            self.tokens[len(self.messages)] = tokens
        self.messages.append(message)
        record.calls.append(
            ModelCall(leaf, action.finish_reason, action.seconds, action.usage, action.retries, turn.flags)
        )
        if rules.counted:
            used.tokens += (action.usage and action.usage.completion_tokens) or rules.count(message)
        self._planned = calls = turn.calls
        if not calls or self.forced is not None:
            self._without_calls(turn, action)
            return ()
        if len(calls) == 1 and rules.free_calls and calls[0].error is None and calls[0].name in rules.tools:
            used.calls += 1
            used.invalid = 0
            return calls
        return self._runnable(turn)

    def _keep_context(self, context: Tokens) -> None:
        """Note, at the last message, what the policy's renderer made of the messages since its turn before."""
        nodes = self.trajectory.nodes
        nodes[self.leaf] = replace(nodes[self.leaf], tokens=context)
        self.tokens[len(self.messages) - 1] = context

    def _roll_back(self) -> tuple[ToolCall, ...]:
        """Take back what the policy was shown since its last turn: its model has no room for it. The task stays."""
        self._planned = ()
        nodes, leaf = self.trajectory.nodes, self.leaf
        while leaf >= 0 and nodes[leaf].origin != "sampled":
            leaf = nodes[leaf].parent
        again = leaf >= 0 and self.forced is None
        while leaf >= 0 and self.leaf != leaf:
            nodes[self.leaf] = replace(nodes[self.leaf], rolled_back=True)
            self.leaf = nodes[self.leaf].parent
            self.messages.pop()
        self._spent(StopReason.MAX_TOKENS, self.rules.limits.on_tokens if again else "stop")
        return ()

    def _without_calls(self, turn: Turn, action: Action) -> None:
        """A turn that runs nothing: an answer, the end of a forced turn, or something that cannot be read."""
        limits = self.rules.limits
        self._planned = ()
        if turn.answer is not None:
            self.answer, self.stop = turn.answer, StopReason.ANSWER
        elif self.forced is not None and (turn.error or turn.calls or limits.no_call != "answer"):
            self.stop = self.forced
        elif action.finish_reason == "length":
            self.stop = StopReason.LENGTH
        elif turn.error is None and limits.no_call == "answer":
            self.answer, self.stop = turn.content.strip(), StopReason.ANSWER
        elif turn.error is None and limits.no_call == "stop":
            self.stop = StopReason.NO_CALL
        elif self._invalid():
            texts = self.rules.texts
            self._notice(texts.no_call if turn.error is None else texts.invalid.format(error=turn.error))

    def _invalid(self) -> bool:
        """Count a turn that could not be read; False where that was one too many, which ends the episode."""
        self.used.invalid += 1
        if self.used.invalid > self.rules.limits.invalid_turns:
            self.stop = StopReason.INVALID
        return self.stop is None

    def _runnable(self, turn: Turn) -> tuple[ToolCall, ...]:
        used, calls = self.used, turn.calls
        if all(call.error is not None for call in calls) and not self._invalid():
            self._planned = ()
            return ()
        kept = self._kept(calls)
        runnable = []
        for call in calls:
            used.calls += 1
            refusal = self._refusal(call, call in kept)
            if refusal is not None:
                self._refused[call.id] = refusal
                continue
            used.per_tool[call.name] = used.per_tool.get(call.name, 0) + 1
            used.invalid = 0
            runnable.append(call)
        return tuple(runnable)

    def _kept(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        most = self.rules.limits.calls_per_turn
        if most is None or len(calls) <= most:
            return calls
        return calls[-most:] if self.rules.limits.extra_calls == "last" else calls[:most]

    def _refusal(self, call: ToolCall, kept: bool) -> ToolResult | None:
        """Why a call is not run, as its result; None where it is to be run."""
        limits = self.rules.limits
        if call.error is not None:
            return failure(call, ToolError(call.error, ToolErrorKind.INVALID_CALL))
        if call.name not in self.rules.tools:
            name = call.name[:_LONGEST_NAME]
            text = f"There is no tool {name!r}{did_you_mean(name, self.rules.tools)}"
            return failure(call, ToolError(text, ToolErrorKind.UNKNOWN_TOOL))
        if not kept:
            return self._limit(call, f"{limits.calls_per_turn} calls a turn", None, "error")
        if limits.calls is not None and self.used.calls > limits.calls:
            return self._limit(call, f"{limits.calls} calls", StopReason.MAX_CALLS, limits.on_calls)
        most = limits.calls_per_tool.get(call.name)
        if most is not None and self.used.per_tool.get(call.name, 0) >= most:
            reason = StopReason.MAX_CALLS
            return self._limit(call, f"{most} calls of {call.name}", reason, limits.on_calls_per_tool)
        return None

    def _limit(self, call: ToolCall, limit: str, reason: StopReason | None, rule: str) -> ToolResult:
        if reason is not None:
            self._spent(reason, rule)
        return failure(call, ToolError(self.rules.texts.limit.format(limit=limit), ToolErrorKind.LIMIT))

    # -- what the policy sees next ----------------------------------------------------------------------------------

    def observe(self, results: Sequence[ToolResult], now: float) -> Observation:
        """Take the results of the calls that `act` asked for, in its order, and say what the policy sees next."""
        planned = self._planned
        if planned is None:
            raise ResetNeededError("no turn is waiting for results: call act() first")
        self._planned = None
        new = len(self.messages)
        if not planned and self.messages[-1].role != "assistant":
            new -= 1  # the notice that `act` left
        if planned and self.stop not in _AT_ONCE:
            if self.rules.failed_free:
                self._uncount(results)
            if self._refused:
                done = iter(results)
                results = [self._refused[call.id] if call.id in self._refused else next(done) for call in planned]
                self._refused = {}
            self._show(results, planned)
        if self.stop is None:
            self._check_budgets(now)
        return self._observation(new, now)

    def _uncount(self, results: Sequence[ToolResult]) -> None:
        for result in results:
            if result.error_kind is not None:
                self.used.per_tool[result.name] -= 1

    def _show(self, results: Sequence[ToolResult], calls: Sequence[ToolCall]) -> None:
        rules = self.rules
        if rules.limits.images is not None:
            results = self._within_images(results)
        shown, changes = [], []
        for result in results:
            seen, cut, made_harmless = rules.clean(result, self.used.images)
            shown.append(seen)
            changes.append((cut, made_harmless))
            if len(seen.parts) != 1 or seen.parts[0].__class__ is not Text:
                self.used.images += count_images(seen.parts)
            if result.stop and result.error_kind is None:
                self.stop = StopReason.TOOL_STOP
                self.answer = "".join(getattr(part, "text", "") for part in result.parts)
        question = str(self.task.metadata.get("question", ""))
        self._record(shown, rules.dialect.results(shown, calls, question), changes)

    def _within_images(self, results: Sequence[ToolResult]) -> list[ToolResult]:
        """The results, those with more images than the episode may still see replaced by an error."""
        limits, kept, seen = self.rules.limits, [], self.used.images
        for result in results:
            count = count_images(result.parts)
            if count and seen + count > (limits.images or 0):
                call = ToolCall(result.call_id, result.name, "")
                said = self._limit(call, f"{limits.images} images", StopReason.MAX_IMAGES, limits.on_images)
                result = replace(result, parts=said.parts, error_kind=said.error_kind)
                count = 0
            seen += count
            kept.append(result)
        return kept

    def _record(
        self, results: Sequence[ToolResult], messages: tuple[Message, ...], changes: Sequence[tuple[int, int]]
    ) -> None:
        caller, record = self.leaf, self.trajectory
        overflow = self.rules.counted and self._overflows(messages)
        first = len(record.nodes)
        one_each = len(messages) == len(results)
        for message in messages:
            self._append(message, "env", overflow)
        for i, result in enumerate(results):
            node = first + i if one_each else first
            shown = one_each and messages[i].parts == result.parts
            record.tool_runs.append(tool_run(result, caller, node, shown, *changes[i]))
        if overflow:
            self.leaf = caller
            self._spent(StopReason.MAX_TOKENS, self.rules.limits.on_tokens)

    def _overflows(self, messages: tuple[Message, ...]) -> bool:
        """Whether an observation has no room in the token budget; where it has, it is counted."""
        extra = sum(self.rules.count(message) for message in messages)
        if self.used.tokens + extra > (self.rules.limits.tokens or 0):
            return True
        self.used.tokens += extra
        return False

    def _check_budgets(self, now: float) -> None:
        limits, used = self.rules.limits, self.used
        if limits.seconds is not None and now - used.started >= limits.seconds:
            self._spent(StopReason.MAX_SECONDS, limits.on_seconds)
        if limits.tokens is not None and used.tokens >= limits.tokens and self.forced is None:
            self._spent(StopReason.MAX_TOKENS, limits.on_tokens)
        if limits.turns is not None and used.turns >= limits.turns and self.forced is None:
            self._spent(StopReason.MAX_TURNS, limits.on_turns)
        if limits.on_calls == "spent" and limits.calls is not None and used.calls >= limits.calls:
            self._spent(StopReason.MAX_CALLS, "stop")
        if self.stop is not None:
            return
        if self.forced is not None:
            self._notice(self.rules.texts.force.format(limit=LIMIT_NAMES[self.forced]))
        elif limits.turns is not None and limits.turns - used.turns <= limits.hint_turns + 1:
            for text in self.rules.hints(limits.turns - used.turns, self.trajectory):
                self._notice(text)

    def _spent(self, reason: StopReason, rule: str) -> None:
        """A budget is spent: do what its rule says. Under "error" the episode goes on."""
        if rule == "force":
            self.forced = self.forced or reason
        elif rule != "error" and self.stop is None:
            self.stop = reason
            self.masked = self.masked or rule == "mask"

    def _notice(self, text: str) -> None:
        """Say something that answers no call, joined to the environment's last message where that is a user turn."""
        last = self.trajectory.nodes[-1] if self.messages and self.trajectory.nodes else None
        joined = last is not None and last.origin == "env" and last.message.role == "user" and not last.rolled_back
        if joined and not text:
            return
        if last is not None and joined:
            message = replace(last.message, parts=(*last.message.parts, Text(self.rules.texts.joint + text)))
            self.trajectory.nodes[-1] = replace(last, message=message)
            self.messages[-1] = message
        else:
            self._append(self.rules.dialect.notice(text), "env")
        if self.rules.counted:
            before = self.rules.count(last.message) if last is not None and joined else 0
            self.used.tokens += self.rules.count(self.messages[-1]) - before

    def _append(self, message: Message, origin: str, rolled_back: bool = False) -> None:
        nodes = self.trajectory.nodes
        nodes.append(Node(message, self.leaf, origin, rolled_back))
        self.leaf = len(nodes) - 1
        if not rolled_back:
            self.messages.append(message)

    def _observation(self, new: int, now: float) -> Observation:
        rules = self.rules
        tools = rules.specs if self.forced is None and self.stop is None else ()
        budget = self._budget(now) if rules.budgets is None else rules.budgets[self.used.turns]
        known = tuple(map(self.tokens.get, range(len(self.messages)))) if self.tokens else ()
        dialect = rules.dialect
        return Observation(
            tuple(self.messages), tools, budget, new, dialect.stop, dialect.name, rules.dialect_options, known
        )

    def _budget(self, now: float) -> Budget:
        limits, used = self.rules.limits, self.used
        seconds = None if limits.seconds is None else float(max(0, math.ceil(limits.seconds - (now - used.started))))
        return Budget(
            _left(limits.turns, used.turns),
            _left(limits.calls, used.calls),
            _left(limits.images, used.images),
            _left(limits.tokens, used.tokens),
            seconds,
        )

    def end(self, reason: StopReason) -> None:
        """End the episode from outside: the policy's engine failed, or a person cancelled it."""
        if self.stop is None:
            self.stop = reason
        self._planned = None

    def observation(self, now: float) -> Observation:
        """What the policy sees in the present state, nothing of it new."""
        return self._observation(len(self.messages), now)


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)


_LONGEST_NAME = 80
_AT_ONCE = frozenset({StopReason.ANSWER, StopReason.INVALID, StopReason.CANCELLED})
