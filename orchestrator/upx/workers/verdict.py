"""What to make of a worker that does not serve yet, and of one that died: decided here, acted upon by ``link``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from upx.workers import faults

if TYPE_CHECKING:
    from upx.errors import UpxError
    from upx.workers.conversation import Conversation
    from upx.workers.logs import LogFile
    from upx.workers.plan import LoadPlan, Timeouts


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
# Reasons for which a box need not be tried again. A worker that ends just as we knock looks like one without its key.
LASTING = frozenset({faults.REFUSED})


def of_start(
    talk: Conversation,
    plan: LoadPlan,
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
        gone = talk.left and (adopted or bool(plan.place))
        return (Verdict("kill", "it left") if plan.place else LOOK_ON) if gone else WAIT
    if talk.phase == "loading":
        return Verdict("kill", f"it did not load within {timeouts.load:g} s")
    if adopted:
        return LOOK_ON
    if age > timeouts.start or plan.place:
        return Verdict("kill", f"it did not answer within {timeouts.far_hello if plan.place else timeouts.start:g} s")
    return Verdict("greet")


def _of_refusal(reason: str, talk: Conversation, plan: LoadPlan, *, adopted: bool) -> Verdict:
    if reason == "version" and talk.refused is not None:
        error = faults.version(plan, talk.refused)
        return Verdict("drain", str(error), error, lasting=True)
    if plan.place:
        return _of_box(reason, talk, plan)
    if adopted or (reason == "busy" and not plan.tied):
        return LOOK_ON
    # Ours that leaves before it served: its exit status and last words are about to say why.
    return WAIT if reason == "leaving" else Verdict("kill", f"it refused us: {reason}")


def _of_box(reason: str, talk: Conversation, plan: LoadPlan) -> Verdict:
    """A box that refuses us: for good, or for now."""
    said = talk.refused.message if talk.refused is not None else ""
    error = faults.refused(plan.place, said or reason)
    return Verdict("kill", str(error), error, lasting=reason in {"identity", "revoked", "forbidden"})


def blameless(*, status: int | None, said_goodbye: bool, entry_removed: bool) -> bool:
    """Whether a worker was ended on purpose: it said goodbye, ended well, or lost its entry before it was killed.

    ``status``: a child's exit status, negative for a signal, None for a process that another command started.
    """
    if said_goodbye:
        return True
    if status is not None and status >= 0:
        return status == 0
    return entry_removed


@dataclass(frozen=True, slots=True)
class Epitaph:
    """What is said of a worker that is gone. ``final``: another would end the same way."""

    words: str
    error: UpxError
    final: bool


def epitaph(plan: LoadPlan, reason: str, log: LogFile | None, *, unserved: bool, blame: bool) -> Epitaph:
    """The last words about a worker; ``blame``: it did not end by intent."""
    words = reason + (faults.last_line(log) if blame or unserved else "")
    if unserved and plan.place:
        return Epitaph(words, faults.unreachable(plan.place, reason), final=reason in LASTING)
    return Epitaph(words, (faults.start_failed if unserved else faults.lost)(plan, words, log), final=False)
