"""One job from a picture to a picture, with workers that answer in this process."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upx.errors import CancelledError, ModelError, OutOfMemoryError, OutputError, PictureTooLargeError
from upx.jobs import JobOptions
from upx.pipeline.batches import tile_seed
from upx.pipeline.job import Job
from upx.pipeline.run import run_job
from upx.routes import Route
from upx.specs import BackendSpec, Capabilities, EnvSpec, ModelSpec, SizeRequirements, TilingSpec
from upx_protocol.arrays import to_dtype, to_float


@dataclass
class Answer:
    array: np.ndarray
    seconds: float = 0.0

    def release(self) -> None:
        self.array = np.empty((0, 0, 3), np.uint8)


@dataclass
class Pool:
    """Enlarges by repetition; runs out of memory above ``most`` pixels a tile or ``most_batch`` tiles a batch."""

    scale: int = 2
    most: int = 10**9
    most_batch: int = 10**9
    size: SizeRequirements = field(default_factory=SizeRequirements)
    capacity: int = 4
    io_seconds: float = 0.0
    seen: list = field(default_factory=list)
    seeds: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    fail: Exception | None = None
    held: bool = False

    def ready(self, timeout):
        return Capabilities(scale=self.scale, size=self.size, device="cpu")

    def submit(self, tiles, *, out_dtype, seeds=(), params=None, job=0, traces=()):
        self.seen.append([(*tile.shape, str(tile.dtype), out_dtype) for tile in tiles])
        self.seeds += seeds
        return [self._answer(tile, out_dtype, len(tiles)) for tile in tiles]

    def cancel(self, job):
        self.cancelled.append(job)

    def _answer(self, tile, out_dtype, batch):
        future = Future()
        if self.held:
            return future
        if self.fail:
            future.set_exception(self.fail)
        elif tile.shape[0] * tile.shape[1] > self.most or batch > self.most_batch:
            future.set_exception(OutOfMemoryError("the device is full"))
        else:
            big = to_float(tile).repeat(self.scale, 0).repeat(self.scale, 1)
            future.set_result(Answer(to_dtype(big, out_dtype)))
        return future


def job(tmp_path, *, options=None, batch=1, **tiling):
    spec = BackendSpec(
        name="double",
        title="double",
        folder=Path(),
        module="double",
        env=EnvSpec("double", Path()),
        models=(ModelSpec("double-x2", 2),),
        default_model="double-x2",
        tiling=TilingSpec(**{"tile": 64, "overlap": 8, **tiling}),
        batch=batch,
    )
    route = Route(spec, spec.models[0], 1, "a test")
    return Job(7, route, "0" * 64, {}, {}, options or JobOptions(), tmp_path / "tiles.json", tmp_path / "scratch")


def photo(height, width, channels=3):
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64), (150, 131)])
@pytest.mark.parametrize("stitch", ["crop", "feather"])
def test_an_array_comes_back_enlarged_whatever_its_size_and_stitching(tmp_path, size, stitch):
    picture = photo(*size)
    result = run_job(job(tmp_path, stitch=stitch), Pool(), picture, None)
    np.testing.assert_array_equal(result.output, picture.repeat(2, 0).repeat(2, 1))
    assert result.record.in_size == (size[1], size[0])
    assert result.record.out_size == (size[1] * 2, size[0] * 2)


def test_a_float_array_stays_float_and_is_never_rounded(tmp_path):
    picture = np.random.default_rng(2).random((40, 50, 3), np.float32)
    result = run_job(job(tmp_path), Pool(), picture, None)
    assert result.output.dtype == np.float32
    np.testing.assert_array_equal(result.output, picture.repeat(2, 0).repeat(2, 1))


def test_a_small_picture_is_sent_in_its_own_shape_and_padded_only_as_demanded(tmp_path):
    pool = Pool(size=SizeRequirements(minimum=10, multiple_of=4))
    result = run_job(job(tmp_path), pool, photo(9, 17), None)
    assert pool.seen == [[(12, 20, 3, "uint8", "uint8")]]
    assert result.output.shape == (18, 34, 3)


def test_no_more_tiles_are_in_flight_than_the_pool_wants(tmp_path):
    pool = Pool(capacity=3, held=True)
    stop = threading.Event()

    def run():
        with pytest.raises(CancelledError):
            run_job(job(tmp_path), pool, photo(400, 400), None, cancel=stop)

    thread = threading.Thread(target=run)
    thread.start()
    while len(pool.seen) < 3:
        pass
    stop.set()
    thread.join(10)
    assert len(pool.seen) == 3
    assert pool.cancelled == [7]


def test_memory_that_runs_out_halves_the_batch_then_the_tile_and_is_remembered(tmp_path):
    pool = Pool(most=40 * 40, most_batch=1)
    picture = photo(128, 128)
    first = run_job(job(tmp_path, batch=4), pool, picture, None)
    np.testing.assert_array_equal(first.output, picture.repeat(2, 0).repeat(2, 1))
    assert max(first.record.tile) <= 40
    again = Pool(most=40 * 40, most_batch=1)
    run_job(job(tmp_path, batch=4), again, picture, None)
    assert len(again.seen) == first.record.tiles, "the second job begins with what worked"


def test_memory_that_never_suffices_ends_in_an_error_that_names_tile_and_batch(tmp_path):
    with pytest.raises(OutOfMemoryError, match=r"tile of 32 pixels and a batch of 1"):
        run_job(job(tmp_path), Pool(most=10), photo(100, 100), None)


def test_the_user_can_hand_over_the_whole_picture(tmp_path):
    pool = Pool()
    run_job(job(tmp_path, options=JobOptions(tile=None)), pool, photo(300, 200), None)
    assert pool.seen == [[(300, 200, 3, "uint8", "uint8")]]


def test_seeds_follow_from_the_job_and_the_tile_alone(tmp_path):
    pool = Pool()
    run_job(job(tmp_path, options=JobOptions(seed=5)), pool, photo(100, 60), None)
    assert pool.seeds == [tile_seed(5, index) for index in range(len(pool.seen))]
    assert pool.seeds[0] == 5
    assert len(set(pool.seeds)) == len(pool.seeds) > 1


def test_without_a_seed_every_tile_has_one_of_its_own_and_always_the_same(tmp_path):
    pools = [Pool(), Pool()]
    for pool in pools:
        run_job(job(tmp_path), pool, photo(150, 131), None)
    assert pools[0].seeds == pools[1].seeds
    assert len(set(pools[0].seeds)) == len(pools[0].seeds) > 1


def test_a_failed_tile_leaves_nothing_at_the_target_and_the_old_file_as_it_was(tmp_path):
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    with pytest.raises(ModelError, match="bad tile"):
        run_job(job(tmp_path), Pool(fail=ModelError("bad tile")), photo(100, 100), target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_a_file_keeps_profile_orientation_and_alpha(tmp_path):
    rgba = photo(20, 30, 4)
    exif = Image.Exif()
    exif[274] = 6
    source = tmp_path / "in.png"
    Image.fromarray(rgba).save(source, exif=exif)
    result = run_job(job(tmp_path), Pool(), source, tmp_path / "out.png")
    with Image.open(result.output) as image:
        assert image.mode == "RGBA"
        assert image.size == (40, 60)
        assert image.getexif().get(274, 1) == 1
    assert result.record.output == str(tmp_path / "out.png")


def test_too_large_for_the_format_is_known_before_any_tile_is_sent(tmp_path):
    pool = Pool()
    with pytest.raises(PictureTooLargeError, match="WebP"):
        run_job(job(tmp_path), pool, photo(2, 8200), tmp_path / "out.webp")
    assert not pool.seen


def test_the_record_says_where_the_time_went(tmp_path):
    result = run_job(job(tmp_path), Pool(), photo(100, 100), tmp_path / "out.png")
    assert {"decode", "tile", "transport", "inference", "stitch", "encode"} <= set(result.record.stages)
    assert result.record.to_json()["schema"] == 1


@pytest.mark.parametrize("kept", ["[]", "null", "42", '{"double-x2 on cpu": 5}', '{"double-x2 on cpu": {"tile": "x"}}',
                                  '{"double-x2 on cpu": {"tile": -4, "batch": 0}}', '{"cut'])  # fmt: skip
def test_what_was_learnt_in_another_shape_is_not_believed_and_replaced(tmp_path, kept):
    (tmp_path / "tiles.json").write_text(kept)
    picture = photo(128, 128)
    result = run_job(job(tmp_path, batch=4), Pool(most=40 * 40, most_batch=1), picture, None)
    np.testing.assert_array_equal(result.output, picture.repeat(2, 0).repeat(2, 1))
    assert json.loads((tmp_path / "tiles.json").read_text())["double-x2 on cpu"]["batch"] == 1


def test_a_disk_without_space_for_what_was_learnt_fails_no_finished_picture(tmp_path):
    (tmp_path / "tiles.json").mkdir()
    result = run_job(job(tmp_path, batch=4), Pool(most_batch=1), photo(100, 100), None)
    assert result.record.status == "done"


def test_a_stream_that_cannot_be_written_is_an_error_with_the_next_step(tmp_path):
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OutputError, match="No space left") as caught:
        run_job(job(tmp_path), Pool(), photo(30, 30), full)
    assert caught.value.hint


def test_a_result_that_does_not_fit_into_memory_is_too_large(tmp_path):
    endless = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (4_000_000, 4_000_000, 3))
    with pytest.raises(PictureTooLargeError, match="8000000 x 8000000 pixels do not fit") as caught:
        run_job(job(tmp_path, options=JobOptions(tile=None)), Pool(), endless, None)
    assert "PNG" in caught.value.hint


@pytest.mark.parametrize(("tile", "said"), [(64, 1), (112, 0), (400, 0)])
def test_tiles_that_cannot_be_aligned_are_said(tmp_path, tile, said):
    picture = photo(150, 300)
    result = run_job(job(tmp_path, options=JobOptions(tile=tile), align=96), Pool(), picture, None)
    np.testing.assert_array_equal(result.output, picture.repeat(2, 0).repeat(2, 1))
    assert len([word for word in result.record.warnings if "less than 112 pixels cannot start" in word]) == said


@pytest.mark.parametrize(("asked", "said"), [("auto", ()), ("fp32", ()), ("fp16", ("fp16", "on cpu: fp32 was taken"))])
def test_another_precision_than_was_asked_for_is_said(tmp_path, asked, said):
    made = dataclasses.replace(job(tmp_path), precision=asked)
    record = run_job(made, Pool(), photo(30, 30), None).record
    assert record.precision == "fp32"
    assert len(record.warnings) == bool(said)
    assert all(words in record.warnings[0] for words in said)


@pytest.mark.parametrize(("own", "said"), [(0, 1), (48, 0)])
def test_a_model_s_own_alignment_comes_before_its_backend_s(tmp_path, own, said):
    made = job(tmp_path, options=JobOptions(tile=64), align=96)
    route = dataclasses.replace(made.route, model=dataclasses.replace(made.route.model, align=own))
    result = run_job(dataclasses.replace(made, route=route), Pool(), photo(150, 300), None)
    assert len(result.record.warnings) == said
