"""How quick a worker is, as seen from here, and what follows: how much it has at a time, when it will be done. Pure.

Its *pace*: seconds a pixel, from the time between two results while it had more to do; that of the slower of link and
worker, which is all that matters here, and a mean over the last few, since results come in bursts. Its *trip*: the
least time from sending a batch to its result, so the way there and back and its own time. A worker that has work for
as long as a trip takes is never idle (as BBR sizes a connection's window).
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from upx.workers import packing
from upx.workers.state import DEPTH

if TYPE_CHECKING:
    from upx.workers.packing import Shape
    from upx.workers.state import Batch, Sent, Worker

KEPT = 8
# The most batches for a worker far away, and by how many they grow with each that is done: its first may have been
# slow for reasons of its own.
DEEPEST, GROWTH = 24, 2
# Twice what the way holds, so that a lost packet's delay finds the worker with work. SLACK: a way that is so much
# shorter than a batch's own time does not count.
GAIN, SLACK = 2.0, 0.25


def learned(worker: Worker, sent: Sent, now: float, result: Shape) -> Worker:
    """A worker one of whose batches has just ended; to be called before ``finished`` says so."""
    took, pixels = now - sent.at, max(1, sent.batch.pixels)
    if sent.at < worker.finished:
        pace = (now - worker.finished) / pixels
        paces = (*worker.paces, pace)[-KEPT:]
        worker = worker._replace(paces=paces, pace=fmean(paces))
        worker = packing.judged(worker, pace, result, packed=sent.packed)
    # One that found nobody before it measures anew; a larger one cannot be compared.
    fresh = not sent.ahead or pixels != worker.trip_pixels
    worker = worker._replace(trip=took if fresh else min(took, worker.trip), trip_pixels=pixels)
    return worker._replace(depth=_depth(worker, pixels)) if worker.far and worker.paces else worker


def _depth(worker: Worker, pixels: int) -> int:
    """Batches of that size that a worker should have: what the way holds, and two."""
    one = max(worker.pace * pixels, 1e-6)
    more = math.ceil(min(GAIN * _way(worker) / one, DEEPEST) - SLACK)
    return min(DEPTH + max(0, more), worker.depth + GROWTH, DEEPEST)


def _way(worker: Worker) -> float:
    """Seconds of a trip that are not the batch's own."""
    return max(0.0, worker.trip - worker.pace * worker.trip_pixels)


def wait(worker: Worker, batch: Batch, now: float) -> float:
    """Seconds until a worker would have done one more batch; 0 while nothing is known of it."""
    if not worker.paces:
        return 0.0
    before = _end(worker, len(worker.sent)) - now if worker.sent else 0.0
    return max(_way(worker), before) + worker.pace * batch.pixels


def left(worker: Worker, index: int, now: float) -> float:
    """Seconds until a worker's batch of that index should be done, or, of an unknown worker, begun. Negative: late."""
    return (_end(worker, index + 1) if worker.paces else worker.sent[index].at) - now


def _end(worker: Worker, count: int) -> float:
    """When the first so many of a worker's batches should be done."""
    begun = max(worker.finished, worker.sent[0].at + _way(worker))
    return begun + worker.pace * sum(sent.batch.pixels for sent in worker.sent[:count])
