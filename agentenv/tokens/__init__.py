"""Token truth: what a model sampled is never tokenised again.

A record keeps, at its nodes, the ids that a policy's engine was given and gave (`Tokens`). `stream` reads them as the
one sequence that the model saw, in segments; `flat` makes it ids, mask and log-probabilities; `expand` puts as many
tokens as the model sees in the place of each medium. `counter` counts them for an environment's limits.
"""

from __future__ import annotations

from agentenv.tokens.counting import counter
from agentenv.tokens.segments import (
    Flat,
    Segment,
    check,
    collapse,
    collapsed,
    expand,
    expanded,
    flat,
    media,
    stream,
    streams,
)

__all__ = [
    "Flat",
    "Segment",
    "check",
    "collapse",
    "collapsed",
    "counter",
    "expand",
    "expanded",
    "flat",
    "media",
    "stream",
    "streams",
]
