"""When a job of the far soak has to end, and how: from the host's timeouts, the box's pauses and its fault. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _far_jobs import ALONE, ELSEWHERE, HOLDS

from upx.serving.box import END_S
from upx.serving.worker import CREDIT_TILES, MOST_BACKOFF_S
from upx.workers.copies import LATE_UNSEEN_S
from upx.workers.plan import Timeouts

if TYPE_CHECKING:
    from _far_jobs import Job

# An interpreter and its imports, and bytes a second from a tile to a file, on a machine that does other things too.
START_S, SLOWEST = 30.0, 2e6
# ZeroMQ's heartbeats end a connection that is silent (channel.FAR), one interval late at most.
HEARTBEAT_S = 10.0 + 2.0
# Tiles that are computed twice, or once more.
TIMES = 3
LOST = 7


def deadline(job: Job) -> float:
    """Seconds from the command's start, within which it has to end, whatever its end is."""
    return START_S + job.nbytes / SLOWEST + TIMES * job.work + _delay(job, Timeouts(**job.timeouts))


def _delay(job: Job, t: Timeouts) -> float:
    """What its fault may cost."""
    noticed = max(HEARTBEAT_S, t.far_ping * (t.far_misses + 1))
    if job.fault == "none":
        return 0.0
    if job.fault == "kill-host":
        # What the dead host had sent may be computed first: all its credit.
        return min(CREDIT_TILES, job.tiles) * job.delay
    if job.fault in ELSEWHERE:
        return noticed + LATE_UNSEEN_S
    if job.fault == "cut-alone":
        return noticed + t.away + _next_try(t.away, t)
    if job.fault in HOLDS:
        return job.hold + noticed + _next_try(job.hold, t)
    gone = (MOST_BACKOFF_S if job.fault == "kill-worker" else END_S + job.work) + START_S
    return gone + _next_try(gone, t)


def _next_try(gone: float, t: Timeouts) -> float:
    """Seconds until a host that found nobody for so long has knocked again (far.FarLaunch) and is heard."""
    return 1.5 * min(t.far_backoff_most, gone + t.far_hello) + t.far_hello


def ends_well(job: Job, *, hit: bool) -> bool:
    """Whether its output has to be there in the end; else it has to end with 7."""
    return job.fault not in ALONE or not hit
