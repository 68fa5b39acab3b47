"""One of HiT-SR's networks in its environment, against a matrix product: hitsr_inside.py FAMILY BACKENDS PROTOCOL.

Prints one JSON line, what ``product.cost`` says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:0] = [*sys.argv[2:4], str(Path(__file__).parent)]
import torch  # noqa: E402
from product import cost  # noqa: E402

from upx_backends.hitsr.model import Config, HitSR  # noqa: E402

SIDE, SCALE = 128, 4


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
    print(json.dumps(cost(lambda: net(picture))))


main()
