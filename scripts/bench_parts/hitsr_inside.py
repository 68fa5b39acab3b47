"""One of HiT-SR's networks in its environment, against a matrix product: hitsr_inside.py FAMILY BACKENDS PROTOCOL.

Prints one JSON line. Both are timed in turns, so that what else the machine does weighs on both; a time times the
product's rate is what the network costs in operations of such a product.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING

sys.path[:0] = sys.argv[2:4]
import torch  # noqa: E402

from upx_backends.hitsr.model import Config, HitSR  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 7
SIDE, SCALE = 128, 4
PRODUCT = 1024


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def network(family: str) -> HitSR:
    """With numbers of no meaning: time does not depend on them."""
    made = HitSR(Config(family, SCALE)).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("relative_position_bias_table"):
            torch.nn.init.normal_(parameter)
    made.prepare()
    return made.to(memory_format=torch.channels_last)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, picture = network(sys.argv[1]), torch.rand(SIDE, SIDE, 3)
    a, b = torch.rand(2, PRODUCT, PRODUCT)
    for _ in range(2):
        net(picture), a @ b
    rounds = []
    for _ in range(TIMES):
        rate = 2 * PRODUCT**3 / seconds(lambda: a @ b) / 1e9
        rounds.append((rate, seconds(lambda: net(picture))))
    print(json.dumps({
        "seconds": statistics.median(each for _, each in rounds),
        "rate": statistics.median(rate for rate, _ in rounds),
        "cost": statistics.median(rate * each for rate, each in rounds),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }))  # fmt: skip


main()
