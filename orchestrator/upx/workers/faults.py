"""The errors that workers cause, built in one place: one line that says what, a hint, the worker's last words.

The last words (the end of its log) are notes of the exception, so that a traceback or ``-v`` shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from upx.errors import (
    CancelledError,
    ModelError,
    OutOfMemoryError,
    PoisonTileError,
    ProtocolVersionError,
    TileRefusedError,
    UpxError,
    WeightsError,
    WorkerLostError,
    WorkerStartError,
)  # fmt: skip
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    from upx.workers.logs import LogFile
    from upx.workers.plan import LoadPlan
    from upx.workers.state import Cause
    from upx_protocol.messages import Failed, Reject

LONGEST_LINE = 300
# Why a channel to a box ended, where it is known.
REFUSED, STRANGER = "it refuses our key", "it does not hold its key"


def with_words(error: UpxError, log: LogFile | None) -> UpxError:
    """The error with the end of the worker's log as a note, and where to read all of it."""
    tail = log.tail() if log is not None else ()
    if log is not None and tail:
        error.add_note("\n".join(("the worker's last words:", *tail, f"(all of them: {log.path})")))
    return error


def last_line(log: LogFile | None) -> str:
    """The last line of a worker's log, shortened, with a colon before it; empty where there is none."""
    tail = log.tail(1) if log is not None else ()
    return f": {tail[0].strip()[:LONGEST_LINE]}" if tail else ""


def start_failed(plan: LoadPlan, reason: str, log: LogFile | None = None) -> UpxError:
    """A worker that never came to serve."""
    if plan.place:
        return refused(plan.place, _line(reason))
    error = WorkerStartError(
        f"the worker of {plan.backend} did not start: {_line(reason)}",
        hint=f"upx doctor checks its environment; upx setup {plan.backend} --repair mends it",
    )
    return with_words(error, log)


def unreachable(place: str, why: str) -> WorkerStartError:
    """A box that cannot be reached, or that does not let us in; ``why`` is the channel's word for it."""
    if why == REFUSED:
        return WorkerStartError(
            f"{place} does not let this machine in",
            hint="there: upx key allow NAME KEY, with the key that upx key shows here",
        )
    if why == STRANGER:
        return WorkerStartError(
            f"{place} does not hold the key that it was added with",
            hint=f"compare upx key show there; if it was set up anew: upx worker rm {place}, then add it again",
        )
    return WorkerStartError(f"{place} cannot be reached: {why}", hint=f"is it on, and serving? upx worker test {place}")


def refused(place: str, reason: str) -> WorkerStartError:
    """A box that answers and does not serve us."""
    return WorkerStartError(f"{place} does not serve us: {reason}", hint=f"upx worker test {place} says how it is")


def lost(plan: LoadPlan, reason: str, log: LogFile | None = None) -> UpxError:
    """Workers that died or hung again and again."""
    error = WorkerLostError(
        f"the worker of {plan.backend} was lost and none could take over: {_line(reason)}",
        hint="upx doctor checks the environment; -v shows the worker's last words",
    )
    return with_words(error, log)


def load_failed(plan: LoadPlan, failed: Failed, log: LogFile | None = None) -> UpxError:
    """A worker that says why it cannot import its backend or load its model."""
    message = _line(failed.message)
    if failed.failure == "oom":
        return OutOfMemoryError(
            f"{plan.model} does not fit into the memory of {plan.device}: {message}",
            hint="close other programs, upx stop other workers, or take a smaller model",
        )
    if failed.failure == "input":
        if plan.place:
            return WeightsError(
                f"{plan.model} cannot be loaded on {plan.place}: {message}",
                hint=f"there: upx models pull {plan.model}, or upx worker serve … --take-files to be sent what is here",
            )
        return WeightsError(
            f"{plan.model} cannot be loaded: {message}", hint="check its weights and --set values; upx doctor helps"
        )
    return start_failed(plan, message, log)


def version(plan: LoadPlan, reject: Reject) -> ProtocolVersionError:
    """A worker of a pool that is of another release."""
    return foreign(plan.place or f"the worker of {plan.backend}", reject)


def foreign(who: str, reject: Reject) -> ProtocolVersionError:
    """A worker of another release: names both ranges, or says that it is too old to be asked as we did."""
    theirs = f"speaks protocol {reject.protocol_min} to {reject.protocol_max}"
    told = theirs if reject.reason == "version" else "is of an older release, which cannot be looked at"
    return ProtocolVersionError(
        f"{who} {told}; this host speaks {OLDEST} to {NEWEST}",
        hint="upx stop all ends workers of another release here; bring a box to the release of this machine",
    )


def of_tile(plan: LoadPlan, cause: Cause, message: str, *, tile: str) -> UpxError:
    """Why one tile failed. ``tile`` names it for people."""
    message = _line(message)
    if cause == "oom":
        return OutOfMemoryError(f"out of memory at {tile}: {message}", hint="take a smaller --tile")
    if cause == "input":
        return TileRefusedError(f"{plan.model} refuses {tile}: {message}", hint="check --set values and the tile size")
    if cause == "poison":
        return PoisonTileError(f"{tile} is poison: {message}", hint="try another --tile, model or device")
    if cause == "cancelled":
        return CancelledError("cancelled", hint="start it again")
    if cause == "lost":
        return lost(plan, message)
    return ModelError(f"{plan.model} failed at {tile}: {message}", hint="-v shows the worker's log")


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_LINE] or "no reason was given"
