"""Phrase -> region: a vision model as the grounder of an image search.

    image_search_tool(pictures, by=("phrase",), ground=PolicyGrounder("openai:VLM", frame="relative_1000"))

Any other detector is a function of the same form (see `types.Grounder`), GroundingDINO for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentenv.dialects import neutralise
from agentenv.errors import ConfigError, ToolError
from agentenv.media import media_store
from agentenv.policy.base import Policy
from agentenv.policy.scripted import Player
from agentenv.tools.image.frames import Frame, PixelBox
from agentenv.tools.image.view import view_of
from agentenv.tools.search.summary import policy_of
from agentenv.types import Budget, Message, Observation, Task, Text

INSTRUCTIONS = """\
Find this in the image: {phrase}

Answer with its bounding box as [x1, y1, x2, y2] (left, top, right, bottom), {frame}, and nothing else. \
If it is not in the image, answer "none"."""

_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,9})?)\s*"
_BOX = re.compile(r"[\[(]" + ",".join([_NUMBER] * 4) + r"[\])]")
_TASK = Task("ground", ())


class PolicyGrounder:
    """A `Grounder` that asks a policy which sees pictures.

    Args:
        policy: the model, as for `PolicySummary`.
        frame: the coordinate frame in which it writes boxes: never guessed from its numbers.
        instructions: what it is asked, with {phrase} and, if wanted, {frame}.
        seed: passed to the policy.
        **options: of the policy's class, where `policy` is a name.

    Raises:
        ConfigError: the instructions do not hold {phrase}.
        UnknownNameError: there is no such frame.
    """

    deterministic = False
    has_deadline = True

    def __init__(
        self,
        policy: Policy | Player | str | Mapping[str, Any],
        *,
        frame: str | Frame = "relative_1000",
        instructions: str = INSTRUCTIONS,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if "{phrase}" not in instructions:
            raise ConfigError("grounder: the instructions do not hold {phrase}")
        self.policy = policy_of(policy, options)
        self.frame = Frame.of(frame) if isinstance(frame, str) else frame
        self.instructions, self.seed = instructions, seed
        self.name = f"grounder {self.policy.info.model or self.policy.info.name}, {self.frame.name}"

    async def __call__(self, file: bytes, phrase: str) -> PixelBox | None:
        """The box in pixels of the picture; None where the model names none that lies in it.

        Raises:
            PolicyError: the model did not answer.
        """
        image = media_store().put(file)
        fields = {"phrase": neutralise(phrase)[0], "frame": self.frame.describes}
        asked = Text(re.sub(r"\{(phrase|frame)\}", lambda found: fields[found[1]], self.instructions))
        player = self.policy.begin(_TASK, seed=self.seed)
        reply = await player.act(Observation((Message("user", (image, asked)),), (), Budget(turns=1)))
        found = _BOX.findall(reply.text.rpartition("</think>")[2])
        if not found:
            return None
        try:
            return self.frame.box([float(number) for number in found[-1]], view_of(image), (image.width, image.height))
        except ToolError:
            return None
