"""Whether tiles travel packed to a worker far away and back: tried, measured, and kept where it is quicker. Pure.

Packing costs time on both machines and saves it on the wire. It is tried where the wire is what all wait for, and
carries less than the codec would; what was measured of both ways decides, and is measured again after a while.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from upx.workers.state import Worker

# Results by which one way is judged, the first after a change left out; and results after which the other is tried
# again.
TRIED, AGAIN = 6, 200
# The wire is what all wait for where computing is so much quicker than results come.
BOUND = 1.3
# So much quicker it has to be.
BETTER = 0.95


class Trial(NamedTuple):
    """What is known of the two ways. ``paces`` of the present one; ``raw``, ``packed``: seconds a pixel, 0: not yet.

    ``results``: of the present way. ``sure``: raw was measured before packed and after.
    """

    paces: tuple[float, ...] = ()
    raw: float = 0.0
    packed: float = 0.0
    results: int = 0
    sure: bool = False


class Shape(NamedTuple):
    """One result. ``seconds`` of computing, ``nbytes`` unpacked; ``codec``: bytes a second of packing, 0: it cannot."""

    pixels: int
    seconds: float
    nbytes: int
    codec: float


def judged(worker: Worker, pace: float, result: Shape, *, packed: bool) -> Worker:
    """A worker one of whose results has come, ``pace`` seconds a pixel after the one before; ``packed`` or not."""
    if not result.codec or packed != worker.packed:
        return worker
    trial = worker.trial
    if not trial.results:
        return worker._replace(trial=trial._replace(results=1))
    paces = (*trial.paces, pace)[-TRIED:]
    trial = trial._replace(paces=paces, results=trial.results + 1)
    if len(paces) < TRIED:
        return worker._replace(trial=trial)
    mean = fmean(paces)
    trial = trial._replace(packed=mean) if packed else trial._replace(raw=mean)
    if packed:
        # A link's first results are its slowest: whatever came after them would look quicker.
        changes = _is_worse(trial) or trial.results > (AGAIN if trial.sure else TRIED)
    else:
        changes = _is_worth_it(trial, result)
    if not changes:
        return worker._replace(trial=trial)
    sure = trial.sure or (not packed and trial.packed > 0)
    return worker._replace(packed=not packed, trial=trial._replace(paces=(), results=0, sure=sure))


def _is_worse(trial: Trial) -> bool:
    return trial.packed > BETTER * trial.raw


def _is_worth_it(trial: Trial, result: Shape) -> bool:
    """Whether to pack from now on: to find out, or because it was better."""
    seconds = trial.raw * result.pixels
    if seconds < BOUND * result.seconds or result.nbytes > result.codec * seconds:
        return False
    return not trial.packed or not _is_worse(trial) or trial.results > AGAIN
