"""Devices: what a name stands for on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from upx.devices import Device, gpu_uuids, resolve_device, share_cores
from upx.errors import UsageError
from upx.specs import BackendSpec, EnvSpec


@pytest.fixture
def gpus(tmp_path):
    """A PATH with an nvidia-smi that knows two GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaa'\necho '1, GPU-bbb'\n")
    tool.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


def test_without_a_driver_auto_is_the_cpu():
    assert resolve_device("auto", ["cpu", "cuda"], environ={"PATH": "/nowhere"}) == Device("cpu", "cpu")


def test_with_one_auto_is_the_first_gpu_by_its_uuid(gpus):
    assert resolve_device("auto", ["cpu", "cuda"], environ=gpus) == Device("cuda:0", "GPU-aaa")
    assert resolve_device("cuda:1", ["cuda"], environ=gpus) == Device("cuda:1", "GPU-bbb")


def test_a_backend_for_the_cpu_alone_stays_there(gpus):
    assert resolve_device("auto", ["cpu"], environ=gpus).name == "cpu"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ["GPU-bbb"]), ("1,0", ["GPU-bbb", "GPU-aaa"]), ("GPU-bbb", ["GPU-bbb"]), ("", [])],
)
def test_numbers_follow_what_the_worker_will_see(gpus, visible, expected):
    assert gpu_uuids({**gpus, "CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cpu:1", "cuda:2", "mps", ""])
def test_a_device_that_is_not_there_is_refused_with_what_is(gpus, wanted):
    with pytest.raises(UsageError) as caught:
        resolve_device(wanted, ["cpu", "cuda"], environ=gpus)
    assert caught.value.hint


def spec(workers, threads):
    return BackendSpec("b", "b", Path(), "b", EnvSpec("b", Path()), (), "b", workers=workers, threads=threads)


@pytest.mark.parametrize(
    ("workers", "threads", "wanted", "cores", "expected"),
    [
        (0, 0, 0, 2, (2, 1)),
        (0, 0, 0, 64, (8, 8)),
        (0, 0, 1, 4, (1, 4)),
        (0, 0, 3, 2, (3, 1)),
        (1, 0, 0, 6, (1, 6)),
        (1, 1, 0, 6, (1, 1)),
    ],
)
def test_workers_and_threads_share_the_cores(workers, threads, wanted, cores, expected):
    assert share_cores(spec(workers, threads), wanted, device="cpu", cores=cores) == expected


def test_a_gpu_is_fed_by_one_worker_unless_more_are_asked_for():
    assert share_cores(spec(0, 0), 0, device="cuda:0", cores=8) == (1, 0)
    assert share_cores(spec(0, 0), 2, device="cuda:0", cores=8) == (2, 0)
