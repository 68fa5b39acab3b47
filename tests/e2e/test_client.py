"""The Python client over real workers of the nearest backend."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import upx
from upx.errors import (
    ModelError,
    OutputPathError,
    ParameterError,
    TileRefusedError,
    UnreadablePictureError,
    UnsupportedPictureError,
)

pytestmark = pytest.mark.shared_workers


@pytest.fixture(scope="module")
def home(upx_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPX_HOME", str(upx_home))
        yield


@pytest.fixture(scope="module")
def nearest(home):
    with upx.Upscaler("nearest", scale=2, workers=2) as upscaler:
        yield upscaler


def photo(height=90, width=70, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def twice(array):
    return array.repeat(2, 0).repeat(2, 1)


def test_what_goes_in_comes_back_as_the_same_kind(nearest, tmp_path):
    array = photo()
    np.testing.assert_array_equal(nearest(array), twice(array))
    image = nearest(Image.fromarray(array))
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(np.asarray(image), twice(array))
    source = tmp_path / "in.png"
    Image.fromarray(array).save(source)
    written = nearest(str(source))
    assert written == tmp_path / "in_2x_nearest-x2.png"
    np.testing.assert_array_equal(np.asarray(Image.open(written)), twice(array))


def test_the_function_does_it_in_one_line(home):
    array = photo(20, 20)
    np.testing.assert_array_equal(upx.up(array, backend="nearest", scale=3), array.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 3), (9, 8, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_shape_and_dtype_comes_back_as_it_was(nearest, shape, dtype):
    array = np.full(shape, 128, np.uint8) if dtype is np.uint8 else np.full(shape, 0.5, np.float32)
    result = nearest(array)
    assert result.dtype == dtype
    assert result.shape == (18, 16, *shape[2:])


def test_sixteen_bit_arrays_are_refused_by_name(nearest):
    with pytest.raises(UnsupportedPictureError, match="uint16"):
        nearest(np.zeros((4, 4, 3), np.uint16))


def test_a_future_carries_the_record_and_progress_reaches_the_end(nearest):
    seen = []
    result = nearest.submit(photo(), on_progress=seen.append).result(60)
    assert result.record.status == "done"
    assert result.record.out_size == (140, 180)
    assert seen[-1].stage == "done"
    assert seen[-1].tiles_done == seen[-1].tiles == result.record.tiles


def test_awaiting_is_the_same(nearest):
    async def go():
        return await asyncio.gather(*(nearest.run(photo(seed=seed)) for seed in range(3)))

    for seed, result in enumerate(asyncio.run(go())):
        np.testing.assert_array_equal(result.output, twice(photo(seed=seed)))


def test_a_batch_keeps_the_order_and_a_bad_picture_fails_alone(nearest, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    results = list(nearest.batch(iter([photo(seed=1), bad, photo(seed=2)])))
    np.testing.assert_array_equal(results[0].output, twice(photo(seed=1)))
    assert isinstance(results[1].error, UnreadablePictureError)
    assert results[1].record.status == "failed"
    np.testing.assert_array_equal(results[2].output, twice(photo(seed=2)))


def test_a_batch_is_lazy_and_reads_a_few_pictures_ahead(nearest):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield photo(8, 8)

    stream = nearest.batch(endless())
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) <= 6


def test_cancelling_a_running_job_drops_it_and_the_next_one_is_served(home):
    with upx.Upscaler("nearest", scale=2, delay=0.2, tile=32) as slow:
        begun = threading.Event()
        future = slow.submit(photo(200, 200), on_progress=lambda p: p.tiles_done and begun.set())
        assert begun.wait(60)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(5)
        started = time.monotonic()
        np.testing.assert_array_equal(slow(photo(20, 20)), twice(photo(20, 20)))
        assert time.monotonic() - started < 5


def test_closing_ends_every_worker_and_the_next_use_says_so(home):
    upscaler = upx.Upscaler("nearest", scale=2)
    upscaler(photo(8, 8))
    upscaler.close()
    upscaler.close()
    with pytest.raises(upx.UpxError, match="closed"):
        upscaler(photo(8, 8))


def test_errors_have_types_and_hints(home, nearest):
    with upx.Upscaler("nearest", scale=2, dellay=1) as wrong, pytest.raises(ParameterError, match="dellay") as caught:
        wrong(photo(8, 8))
    assert "delay" in caught.value.hint
    with pytest.raises(ParameterError, match="tile"):
        upx.Upscaler(tile="big")
    with upx.Upscaler("nearest", scale=2, fail_on="ff0000") as picky:
        red = np.zeros((8, 8, 3), np.uint8)
        red[..., 0] = 255
        with pytest.raises((ModelError, TileRefusedError)):
            picky(red)
        np.testing.assert_array_equal(picky(photo(8, 8)), twice(photo(8, 8)))


def test_a_forked_copy_refuses_to_work(nearest):
    nearest(photo(8, 8))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            nearest(photo(8, 8))
            answer = b"served"
        except BaseException as error:  # noqa: BLE001
            answer = f"{type(error).__name__}: {error}".encode()
        os.write(write, answer[:200])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said.startswith(b"WorkerError"), said
    np.testing.assert_array_equal(nearest(photo(8, 8)), twice(photo(8, 8)))


def test_workers_serve_several_pictures_of_a_thread_pool_at_once(nearest, tmp_path):
    for number in range(6):
        Image.fromarray(photo(60, 60, seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "out").mkdir()
    futures = [nearest.submit(path, tmp_path / "out") for path in sorted(tmp_path.glob("*.png"))]
    for number, future in enumerate(futures):
        output = future.result(60).output
        assert output == Path(tmp_path / "out" / f"{number}_2x_nearest-x2.png")
        np.testing.assert_array_equal(np.asarray(Image.open(output)), twice(photo(60, 60, seed=number)))


def test_a_batch_that_holds_nothing_among_its_pictures_goes_on_after_it(nearest):
    given = [photo(8, 8), None, photo(8, 8)]
    assert [type(result.error) for result in nearest.batch(given)] == [type(None), UnsupportedPictureError, type(None)]


def test_what_an_iterator_raises_comes_after_the_results_of_what_it_gave(nearest):
    def pictures():
        yield photo(8, 8)
        yield photo(8, 8)
        raise LookupError("no more")

    told = []
    with pytest.raises(LookupError, match="no more"):
        told.extend(result.record.status for result in nearest.batch(pictures()))
    assert told == ["done", "done"]


def test_a_template_knows_the_size_and_the_bytes_of_files_and_of_what_is_in_memory(nearest, tmp_path):
    source = tmp_path / "in.png"
    Image.fromarray(photo(9, 7)).save(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    template = str(tmp_path / "{stem}-{width}x{height}-{hash}.png")
    assert nearest(source, template) == tmp_path / f"in-14x18-{digest}.png"
    assert nearest(photo(5, 6), template).name.startswith("picture-12x10-")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_text_that_is_no_path_is_refused(nearest, name):
    with pytest.raises(UnreadablePictureError, match="no path"):
        nearest(name)


@pytest.mark.parametrize(
    "wrong", [{"workers": "2"}, {"keep_alive": "5m"}, {"seed": 1.5}, {"scale": "2"}, {"device": 0}]
)
def test_an_argument_of_the_wrong_kind_is_refused_at_once(home, wrong):
    with pytest.raises(ParameterError):
        upx.Upscaler("nearest", **wrong)


def test_a_callback_may_close_its_upscaler(home):
    def close(_):
        upscaler.close()
        closed.append(True)

    closed = []
    upscaler = upx.Upscaler("nearest")
    with pytest.raises(upx.UpxError):
        upscaler(photo(8, 8), on_progress=close)
    wait_for(lambda: closed)
    closed.clear()
    upscaler = upx.Upscaler("nearest")
    future = upscaler.submit(photo(8, 8))
    future.add_done_callback(close)
    assert future.result(30).record.status == "done"
    wait_for(lambda: closed)


def test_an_interrupt_while_waiting_cancels_the_picture(home):
    with upx.Upscaler("nearest", delay=5.0) as upscaler:
        timer = threading.Timer(1.0, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            upscaler(photo(8, 8))
        timer.join()
        wait_for(lambda: not upscaler._running)
        assert time.monotonic() - began < 4


def test_an_upscaler_that_is_forgotten_leaves_no_worker_and_no_thread(home):
    before = threading.active_count()
    upscaler = upx.Upscaler("nearest")
    upscaler(photo(8, 8))
    assert threading.active_count() > before
    del upscaler
    gc.collect()
    wait_for(lambda: threading.active_count() <= before)


def wait_for(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_trace_of_one_picture_is_written_also_when_it_fails(nearest, tmp_path):
    path = tmp_path / "trace.json"
    np.testing.assert_array_equal(nearest(photo(), trace=path), twice(photo()))
    events = json.loads(path.read_text())["traceEvents"]
    assert {"picture", "decode", "queue", "inference", "encode"} <= {event["name"] for event in events}
    with pytest.raises(UnsupportedPictureError):
        nearest(np.zeros((4, 4, 3), np.uint16), trace=path)
    (whole,) = [event for event in json.loads(path.read_text())["traceEvents"] if event["name"] == "picture"]
    assert whole["args"]["error"] == "UnsupportedPictureError"


def test_a_trace_that_cannot_be_written_fails_its_picture_before_it_is_begun(nearest, tmp_path):
    future = nearest.submit(photo(), tmp_path / "out.png", trace=tmp_path / "none" / "trace.json")
    with pytest.raises(OutputPathError):
        future.result(60)
    assert list(tmp_path.iterdir()) == []
