"""What to make of a worker that does not serve yet, and of one that died: decided here, acted upon by ``link``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upx.workers import faults

if TYPE_CHECKING:
    from upx.errors import UpxError
    from upx.workers.conversation import Conversation
    from upx.workers.logs import LogFile
    from upx.workers.plan import Timeouts, WorkerPlan


@dataclass(frozen=True, slots=True)
class Verdict:
    """``look on``: it is of no use to us, and no business of ours. ``drain``: it is ours and of no use to anybody.

    ``lasting``: another try would end the same way.
    """

    what: Literal["wait", "greet", "look on", "drain", "kill"]
    reason: str = ""
    error: UpxError | None = None
    lasting: bool = False


WAIT = Verdict("wait")
LOOK_ON = Verdict("look on")


def of_start(
    talk: Conversation,
    plan: WorkerPlan,
    timeouts: Timeouts,
    *,
    now: float,
    age: float,
    adopted: bool,
    log: LogFile | None,
) -> Verdict:
    """Whether to go on with a worker that is greeted or loads; ``age``: seconds since it was asked for."""
    if talk.phase == "serving":
        return WAIT
    if talk.failure is not None:
        error = faults.load_failed(plan, talk.failure, log)
        return Verdict("drain", str(error), error, lasting=talk.failure.failure != "transient")
    if talk.refused is not None:
        return _of_refusal(talk.refused.reason, talk, plan, adopted=adopted)
    if now <= talk.deadline:
        return LOOK_ON if talk.left and adopted else WAIT
    if talk.phase == "loading":
        return Verdict("kill", f"it did not load within {timeouts.load:g} s")
    if adopted:
        return LOOK_ON
    if age > timeouts.start:
        return Verdict("kill", f"it did not answer within {timeouts.start:g} s")
    return Verdict("greet")


def _of_refusal(reason: str, talk: Conversation, plan: WorkerPlan, *, adopted: bool) -> Verdict:
    if reason == "version" and talk.refused is not None:
        error = faults.version(plan, talk.refused)
        return Verdict("drain", str(error), error, lasting=True)
    if adopted or (reason == "busy" and not plan.tied):
        return LOOK_ON
    # Ours that leaves before it served: its exit status and last words are about to say why.
    return WAIT if reason == "leaving" else Verdict("kill", f"it refused us: {reason}")


def blameless(*, status: int | None, said_goodbye: bool, entry_removed: bool) -> bool:
    """Whether a worker was ended on purpose: it said goodbye, ended well, or lost its entry before it was killed.

    ``status``: a child's exit status, negative for a signal, None for a process that another command started.
    """
    if said_goodbye:
        return True
    if status is not None and status >= 0:
        return status == 0
    return entry_removed
