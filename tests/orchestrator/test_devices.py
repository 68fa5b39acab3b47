"""Devices: what a name stands for on this machine."""

from __future__ import annotations

import pytest

from upx.devices import Device, gpu_uuids, resolve_device
from upx.errors import UsageError


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
