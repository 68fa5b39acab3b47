import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# A job without a worker: decode, cut, enlarge by repetition, stitch, encode. The peak is the process's own.
PROGRAM = """
import resource, sys
import numpy as np
from pathlib import Path
from PIL import Image, PngImagePlugin, JpegImagePlugin, WebPImagePlugin
from upx.media.channels import Channels
from upx.media.encoders import open_encoder
from upx.media.reading import open_picture
from upx.specs import SizeRequirements
from upx.stitching import Stitcher
from upx.tiling import plan_tiles

source, target, scale, tile = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
np.rint(np.ones((9, 9), np.float32) * 2)

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

before = peak()
with open_picture(source) as picture:
    channels = Channels(picture, scale)
    plan = plan_tiles(picture.height, picture.width, tile=tile, overlap=24, size=SizeRequirements())
    stitcher = Stitcher(plan, scale, 3, channels.dtype, "crop")
    encoder = open_encoder(
        target, target.suffix, width=plan.width * scale, height=plan.height * scale, mode=channels.mode
    )
    for index, box in enumerate(plan.boxes):
        out = channels.tile(box).repeat(scale, 0).repeat(scale, 1)
        for top, band in stitcher.add(index, out):
            encoder.write(channels.finish(top, band))
            del band
    stitcher.finish()
    encoder.close()
    print(peak() - before, plan.width * plan.tile_height * scale**2)
"""


def measured(source, target, *, scale, tile):
    command = [sys.executable, "-c", PROGRAM, str(source), str(target), str(scale), str(tile)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    extra, unit = done.stdout.split()
    return int(extra), int(unit)


@pytest.fixture(scope="module")
def nine_megapixels(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "nine.png"
    small = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    Image.fromarray(small).resize((3000, 3000)).save(path, compress_level=1)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_host_holds_one_copy_of_the_input_and_a_few_bands(nine_megapixels, tmp_path, suffix):
    extra, unit = measured(nine_megapixels, tmp_path / f"out.{suffix}", scale=2, tile=256)
    print(f"{suffix}: {extra / 1e6:.1f} MB above start-up, k = {(extra - 4 * 9e6) / unit:.1f}")
    assert extra <= 4.6 * 9e6 + 6 * unit
