"""Advantages within a group: how much better an attempt was than the others at the same task.

Rewards are floats, None where an attempt is unscored: it then takes no part in the group's statistics, and its
advantage is None. A group whose scored rewards are all equal teaches nothing: its advantages are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

from agentenv.errors import UnknownNameError, UsageError

Rewards = Sequence[float | None]
Advantages = list[float | None]


def grpo(rewards: Rewards, eps: float = 1e-4, ddof: int = 1) -> Advantages:
    """GRPO: (r - mean) / (std + eps).

    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2. The paper leaves open how the deviation is estimated;
    trainers take the sample deviation (ddof=1) and add a small eps.

    Args:
        rewards: of one group, None where unscored.
        eps: keeps the quotient finite.
        ddof: the deviation divides by n - ddof.

    Returns:
        One advantage a reward, None where unscored.
    """
    scored = _scored(rewards)
    if zero_variance(rewards) or len(scored) <= ddof:
        return _zeros(rewards)
    mean = math.fsum(scored) / len(scored)
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in scored) / (len(scored) - ddof))
    return [None if r is None or math.isnan(r) else (r - mean) / (deviation + eps) for r in rewards]


def dr_grpo(rewards: Rewards) -> Advantages:
    """Dr. GRPO: r - mean, without the division, which favours tasks that are nearly solved or nearly hopeless.

    Source: "Understanding R1-Zero-Like Training", arXiv 2503.20783, section 3.

    Args:
        rewards: of one group, None where unscored.

    Returns:
        One advantage a reward, None where unscored.
    """
    scored = _scored(rewards)
    if zero_variance(rewards):
        return _zeros(rewards)
    mean = math.fsum(scored) / len(scored)
    return [None if r is None or math.isnan(r) else r - mean for r in rewards]


def rloo(rewards: Rewards) -> Advantages:
    """RLOO: r less the mean of the other attempts.

    Source: "Back to Basics: Revisiting REINFORCE Style Optimization", arXiv 2402.14740, section 2. Written as
    n / (n - 1) * (r - mean), which is the same.

    Args:
        rewards: of one group, None where unscored.

    Returns:
        One advantage a reward, None where unscored; 0 in a group with one scored attempt, which has no others.
    """
    n = len(_scored(rewards))
    return [None if a is None else a * n / (n - 1) if n > 1 else 0.0 for a in dr_grpo(rewards)]


def copg(rewards: Rewards, logratios: Sequence[float], beta: float = 0.1) -> Advantages:
    """CoPG: RLOO over rewards less the divergence from a reference policy, which also holds off-policy.

    Source: "Contrastive Policy Gradient", arXiv 2406.19185. Its loss over the pairs of a group (`copg_loss`) has, for
    the sequence i, the gradient -2 beta * (R_i - mean of the others' R) * grad log pi(y_i), with
    R = r - beta * log(pi(y) / pi_ref(y)): what stands before the gradient is -2 beta times the value returned here.

    Args:
        rewards: of one group, None where unscored.
        logratios: log(pi(y) / pi_ref(y)) of each whole sequence, under the policy that is trained.
        beta: how much divergence costs.

    Returns:
        One advantage a reward, None where unscored.
    """
    return rloo(_regularised(rewards, logratios, beta))


def copg_loss(rewards: Rewards, logratios: Sequence[float], beta: float = 0.1) -> float:
    """CoPG's loss of a group: the sum over pairs i < j of (R_i - R_j)^2, divided by k - 1.

    Source: as `copg`; k is the number of scored attempts. 0 where there are fewer than two.
    """
    known = _scored(_regularised(rewards, logratios, beta))
    pairs = math.fsum((a - b) ** 2 for i, a in enumerate(known) for b in known[i + 1 :])
    return pairs / (len(known) - 1) if len(known) > 1 else 0.0


def branched(rewards: Rewards, paths: Sequence[Sequence[Hashable]]) -> list[list[float | None]]:
    """Leave-one-out over branches: the mean reward of those that go through a turn, less that of those that do not.

    Attempts that were forked share their first turns; such a turn is judged by all that came of it. This is RLOO with
    the branches through a turn in the place of the one attempt: without any sharing it is `rloo`.

    Args:
        rewards: of the branches of one group, None where unscored.
        paths: of each branch, what names its turns; a turn that branches share has the same name in each.

    Returns:
        Of each branch one advantage a turn; None throughout where it is unscored, 0 where all branches share the turn.
    """
    if len(paths) != len(rewards):
        raise UsageError(f"{len(rewards)} rewards for {len(paths)} branches")
    known = [(reward, path) for reward, path in zip(rewards, paths, strict=True) if _known(reward)]
    whole, count = math.fsum(reward or 0.0 for reward, _ in known), len(known)
    through: dict[Hashable, list[float]] = {}
    for reward, path in known:
        for turn in dict.fromkeys(path):
            through.setdefault(turn, []).append(reward or 0.0)
    values = {turn: _against_the_others(found, whole, count) for turn, found in through.items()}
    return [
        [values[turn] if _known(reward) else None for turn in path] for reward, path in zip(rewards, paths, strict=True)
    ]


def _against_the_others(found: list[float], whole: float, count: int) -> float:
    own, others = math.fsum(found), count - len(found)
    return own / len(found) - (whole - own) / others if others else 0.0


def process_grpo(steps: Sequence[Sequence[float]], eps: float = 1e-4, ddof: int = 1) -> list[list[float]]:
    """GRPO with rewards of single turns: each turn gets the sum of the normalised rewards of itself and what follows.

    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.3 (process supervision): all step rewards of the group are
    normalised by their common mean and deviation.

    Args:
        steps: of each attempt of a group, one reward a turn.
        eps: keeps the quotient finite.
        ddof: the deviation divides by n - ddof.
    """
    flat = grpo([value for values in steps for value in values], eps, ddof)
    normal = iter(value or 0.0 for value in flat)
    return [_to_go([next(normal) for _ in values]) for values in steps]


def _to_go(values: list[float]) -> list[float]:
    return [math.fsum(values[index:]) for index in range(len(values))]


def reinforce_pp(
    groups: Sequence[Rewards], tokens: Sequence[Sequence[int]] | None = None, eps: float = 1e-8
) -> list[Advantages]:
    """REINFORCE++ with a group baseline: r - mean of the group, then normalised over the whole batch.

    Source: REINFORCE++, arXiv 2501.03262, section on the baseline variant. Trainers take mean and deviation over all
    tokens of the batch that count in the loss, so that a longer attempt weighs more; `tokens` gives that.

    Args:
        groups: rewards by group, None where unscored.
        tokens: for each reward the number of its attempt's tokens in the loss; without it each attempt counts once.
        eps: under the root, beside the variance.

    Returns:
        For each group one advantage a reward, None where unscored.
    """
    centred = [dr_grpo(rewards) for rewards in groups]
    counts = tokens or [[1] * len(rewards) for rewards in groups]
    pairs = [
        (value, count)
        for row, numbers in zip(centred, counts, strict=True)
        for value, count in zip(row, numbers, strict=True)
        if value is not None
    ]
    total = sum(count for _, count in pairs)
    mean = math.fsum(value * count for value, count in pairs) / total if total else 0.0
    spread = math.fsum(count * (value - mean) ** 2 for value, count in pairs) / (total - 1) if total > 1 else 0.0
    scale = math.sqrt(spread + eps)
    return [[None if value is None else (value - mean) / scale for value in row] for row in centred]


METHODS: dict[str, Callable[..., Advantages]] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}
"""Methods that look at one group of rewards and nothing else."""


def advantages(rewards: Rewards, method: str = "grpo", **options: float) -> Advantages:
    """Advantages of a group by a method's name: grpo, dr_grpo or rloo.

    Args:
        rewards: of one group, None where unscored.
        method: the name.
        **options: of the method, for instance `eps`.

    Raises:
        UnknownNameError: there is no such method.
    """
    if method not in METHODS:
        raise UnknownNameError("advantage method", method, METHODS)
    return METHODS[method](rewards, **options)


def zero_variance(rewards: Rewards) -> bool:
    """Whether the scored rewards are all equal (or there are none), so that the group gives no gradient."""
    scored = _scored(rewards)
    return not scored or max(scored) - min(scored) <= 1e-12 * max(1.0, abs(max(scored)))


def _known(reward: float | None) -> bool:
    return reward is not None and not math.isnan(reward)


def _scored(rewards: Rewards) -> list[float]:
    return [float(r) for r in rewards if r is not None and not math.isnan(r)]


def _zeros(rewards: Rewards) -> Advantages:
    return [0.0 if _known(r) else None for r in rewards]


def _regularised(rewards: Rewards, logratios: Sequence[float], beta: float) -> Advantages:
    if len(rewards) != len(logratios):
        raise UsageError(f"{len(rewards)} rewards for {len(logratios)} log-ratios")
    return [None if r is None else r - beta * ratio for r, ratio in zip(rewards, logratios, strict=True)]
