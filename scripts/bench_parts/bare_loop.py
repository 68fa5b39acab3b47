"""What people write who need one model once: load, cut, run, paste, save; one process, one thread of Python.

Runs in the network's environment with Pillow added, without upx. Arguments: param file, bin file, threads. Reads
one JSON question a line and answers each with one JSON line of seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict

import ncnn
import numpy as np
from PIL import Image

SCALE = 4
LEVEL = 1


def load(param: str, weights: str, threads: int) -> ncnn.Net:
    net = ncnn.Net()
    # The worker's options: ncnn's own, without a GPU.
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if net.load_param(param) or net.load_model(weights):
        raise SystemExit(f"cannot load {weights}")
    return net


def infer(net: ncnn.Net, tile: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H * 4, W * 4, 3) uint8."""
    chw = np.ascontiguousarray(tile.transpose(2, 0, 1), np.float32) / np.float32(255)
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], ncnn.Mat(chw))
    _, out = extractor.extract(net.output_names()[0])
    array = np.clip(np.array(out) * 255, 0, 255)
    return np.rint(array).astype(np.uint8).transpose(1, 2, 0)


def up(net: ncnn.Net, source: str, target: str, tiles: list[list[int]]) -> dict[str, float]:
    stages: dict[str, float] = defaultdict(float)
    begin = now = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal now
        then, now = now, time.perf_counter()
        stages[name] += now - then

    with Image.open(source) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    large = np.empty((pixels.shape[0] * SCALE, pixels.shape[1] * SCALE, 3), np.uint8)
    lap("decode")
    for top, bottom, left, right, *core in tiles:
        result = infer(net, pixels[top:bottom, left:right])
        lap("inference")
        y0, y1, x0, x1 = (side * SCALE for side in core)
        inside = result[y0 - top * SCALE : y1 - top * SCALE, x0 - left * SCALE : x1 - left * SCALE]
        large[y0:y1, x0:x1] = inside
        lap("stitch")
    Image.fromarray(large).save(target, "PNG", compress_level=LEVEL)
    lap("encode")
    return {"seconds": time.perf_counter() - begin, **stages}


def network(net: ncnn.Net, side: int) -> dict[str, float]:
    tile = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    begin = time.perf_counter()
    infer(net, tile)
    return {"seconds": time.perf_counter() - begin}


def main() -> None:
    param, weights, threads = sys.argv[1:]
    net = load(param, weights, int(threads))
    for line in sys.stdin:
        question = json.loads(line)
        if "side" in question:
            answer = network(net, question["side"])
        else:
            answer = up(net, question["source"], question["target"], question["tiles"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
