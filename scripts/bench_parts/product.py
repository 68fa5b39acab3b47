"""What a call costs in operations of a matrix product of 1024; runs in a backend's environment, which has torch.

Both are timed in turns in one process, so that what else the machine does weighs on both: the call's time times the
product's rate is what the call costs in floating-point operations of such a product.
"""

from __future__ import annotations

import resource
import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 7
PRODUCT = 1024


def seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def cost(call: Callable[[], object]) -> dict[str, float]:
    """Medians of TIMES calls: ``seconds``, ``rate`` of the product in GFLOP/s, ``cost`` in GFLOP; ``peak`` in MB."""
    a, b = torch.rand(2, PRODUCT, PRODUCT)
    for _ in range(2):
        call(), a @ b
    rounds: list[tuple[float, float]] = []
    for _ in range(TIMES):
        rate = 2 * PRODUCT**3 / seconds(lambda: a @ b) / 1e9
        rounds.append((rate, seconds(call)))
    return {
        "seconds": statistics.median(each for _, each in rounds),
        "rate": statistics.median(rate for rate, _ in rounds),
        "cost": statistics.median(rate * each for rate, each in rounds),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def arithmetic(call: Callable[[], object]) -> float:
    """GFLOP of a call's convolutions and products alone, two for a multiplication with its addition.

    Not in inference mode, in which the counter sees nothing.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # Attention in one operator is one that the counter does not know.
    parts = torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)
    with FlopCounterMode(display=False) as counter, parts:
        call()
    return counter.get_total_flops() / 1e9
