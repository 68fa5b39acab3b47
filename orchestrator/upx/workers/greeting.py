"""What a host says first, hello and what is to be loaded, and what it learns of it. Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from upx.specs import Capabilities, SizeRequirements
from upx_protocol import messages as wire
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from upx.workers.plan import LoadPlan, Timeouts


def hello(plan: LoadPlan, number: int, features: tuple[str, ...]) -> wire.Hello:
    """The question for a session."""
    return wire.Hello(number, OLDEST, NEWEST, features, f"upx {os.getpid()}", plan.env, plan.build)


def load(plan: LoadPlan, number: int, timeouts: Timeouts) -> wire.Load:
    """The request to make the plan's model resident."""
    return wire.Load(
        number, plan.load_key, plan.model, dict(plan.files), plan.device, plan.precision, plan.threads,
        dict(plan.params), int(timeouts.load * 1000), plan.weights,
    )  # fmt: skip


def capabilities(loaded: wire.Loaded) -> Capabilities:
    """What a worker that has loaded can do."""
    size = SizeRequirements(loaded.minimum, loaded.multiple_of, loaded.square, loaded.fixed)
    return Capabilities(
        loaded.scale, size, loaded.device, loaded.device_name, loaded.precision, loaded.dtypes, loaded.weights
    )
