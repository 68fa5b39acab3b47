from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from venv_kit import House, make_settings

from upx.config import Settings
from upx.errors import EnvBuildError, UsageError
from upx.specs import EnvSpec
from upx.venvs import uv as uv_module
from upx.venvs.builder import EnvBuilder
from upx.venvs.marker import MARKER
from upx.venvs.venv import Progress

ENVS = Path(__file__).parents[3] / "envs"


def test_an_environment_is_built_once_and_found_from_its_marker(house: House, builder: EnvBuilder):
    spec, seen = house.spec(), list[Progress]()
    assert builder.find(spec) is None
    venv = builder.ensure(spec, on_progress=seen.append)
    assert [step.stage for step in seen][:2] == ["python", "resolve"]
    assert seen[-1].stage == "done"
    assert venv.folder.name.startswith("tiny-")
    assert dict(venv.versions) == {"alpha": "1.0", "beta": "1.0"}
    assert builder.check(venv, hashes=True) == []
    assert builder.find(spec) == venv
    assert builder.ensure(spec, on_progress=lambda _: pytest.fail("built again")) == venv
    found = subprocess.check_output([venv.python, "-I", "-c", "import alpha; print(alpha.__file__)"], text=True)
    assert Path(found.strip()).parent.parent == venv.site_packages


def test_nothing_but_the_environment_and_its_build_lock_is_left(house: House, builder: EnvBuilder):
    venv = builder.ensure(house.spec())
    assert sorted(path.name for path in venv.folder.parent.iterdir()) == [".tiny.build.lock", venv.folder.name]


def test_another_lock_flavour_extra_or_interpreter_is_another_environment(house: House, builder: EnvBuilder):
    extra = house.add("gamma")
    spec = house.spec(wheels=house.wheels[:2])
    cpu = dataclasses.replace(spec, cpu_lock=house.spec("tiny.cpu", wheels=house.wheels[:1]).lock)
    house.spec("tiny.more", wheels=[extra])
    venvs = [
        builder.ensure(spec),
        builder.ensure(dataclasses.replace(cpu, imports=()), flavour="cpu"),
        builder.ensure(spec, extras=["more"]),
        EnvBuilder(make_settings(house.root, wheelhouse=house.folder, python="3.11")).ensure(spec),
    ]
    assert len({venv.folder for venv in venvs}) == 4
    assert len({venv.fingerprint for venv in venvs}) == 4
    assert [sorted(venv.versions) for venv in venvs[:3]] == [["alpha", "beta"], ["alpha"], ["alpha", "beta", "gamma"]]
    assert [venv.flavour for venv in venvs[:2]] == ["default", "cpu"]


def test_a_flavour_or_extra_that_does_not_exist_names_those_that_do(house: House, builder: EnvBuilder):
    spec = house.spec()
    house.spec("tiny.more")
    with pytest.raises(UsageError, match="no flavour 'cpu'") as flavour:
        builder.find(spec, flavour="cpu")
    assert "auto, default" in flavour.value.hint
    with pytest.raises(UsageError, match="no extra 'less'") as extra:
        builder.find(spec, extras=["less"])
    assert "more" in extra.value.hint


def test_an_import_that_fails_builds_nothing_and_says_which(house: House, builder: EnvBuilder):
    house.add("broken", source="raise OSError('libmissing.so.6: cannot open shared object file')")
    with pytest.raises(EnvBuildError, match=r"`import broken` fails: OSError: libmissing") as caught:
        builder.ensure(house.spec())
    assert "upx setup tiny -v" in caught.value.hint
    assert builder.list_envs() == []


def test_an_environment_without_its_marker_is_built_anew_beside(house: House, builder: EnvBuilder):
    spec = house.spec()
    first = builder.ensure(spec)
    (first.folder / MARKER).unlink()
    second = builder.ensure(spec)
    assert second.folder.name == first.folder.name + "-g2"
    assert second.fingerprint == first.fingerprint + "-g2"
    assert builder.find(spec) == second


def test_a_marker_that_cannot_be_read_means_not_built(house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    whole = (venv.folder / MARKER).read_text()
    for text in ("", "[]", "{}", whole[:50], json.dumps({**json.loads(whole), "schema": 99})):
        (venv.folder / MARKER).write_text(text)
        assert builder.find(spec) is None


def test_an_environment_whose_interpreter_is_gone_is_not_found(house: House, builder: EnvBuilder):
    spec = house.spec()
    venv = builder.ensure(spec)
    venv.python.unlink()
    venv.python.symlink_to("/nowhere/python3.11")
    assert builder.find(spec) is None


def test_four_processes_at_once_build_once(house: House, builder: EnvBuilder):
    spec = house.spec()
    command = [sys.executable, str(Path(__file__).with_name("venv_host.py")), str(house.root), str(spec.lock)]
    hosts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [host.communicate(timeout=60)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0] * 4
    assert sum("stage done" in output for output in outputs) == 1
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert len(builder.list_envs()) == 1


def test_finding_costs_under_five_milliseconds_and_imports_nothing_heavy(house: House, builder: EnvBuilder):
    spec = dataclasses.replace(house.spec(), lock=ENVS / "span.lock")
    real = house.spec("other")
    builder.ensure(real)
    costs = []
    for _ in range(20):
        started = time.perf_counter()
        builder.find(real)
        builder.find(spec)
        costs.append(time.perf_counter() - started)
    assert sorted(costs)[10] < 0.010  # two of them
    program = "import sys, upx.venvs.builder; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    heavy = {
        "uv",
        "subprocess",
        "shutil",
        "csv",
        "upx.venvs.build",
        "upx.venvs.uv",
        "upx.venvs.inventory",
        "numpy",
        "pydantic",
        "zmq",
        "rich",
        "msgpack",
        "PIL",
        "asyncio",
    }
    assert not loaded & heavy


def test_uv_sees_none_of_the_variables_that_steer_python_pip_or_uv(house: House):
    child = {"PATH": "/bin", "PYTHONPATH": "/x", "UV_INDEX": "x", "VIRTUAL_ENV": "/v", "PIP_INDEX_URL": "x"}
    settings = make_settings(house.root, child_env=child, network_env={"HTTPS_PROXY": "p"}, index="http://i/simple")
    assert uv_module.uv_env(settings) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "p",
        "NO_COLOR": "1",
        "UV_CACHE_DIR": str(house.root / "uv-cache"),
        "UV_DEFAULT_INDEX": "http://i/simple",
    }


def test_the_nearest_backends_lock_builds_a_whole_environment(tmp_path: Path):
    outside = Settings.from_env()
    settings = make_settings(tmp_path, offline=False, python=None, network_env=outside.network_env, index=outside.index)
    builder = EnvBuilder(settings)
    spec = EnvSpec("nearest", ENVS / "nearest.lock")
    venv = builder.ensure(spec)
    assert builder.check(venv, hashes=True) == []
    assert {"numpy", "pyzmq", "msgpack"} == set(venv.versions)
    version = subprocess.check_output([venv.python, "-I", "-c", "import sys; print(sys.version_info[:2])"], text=True)
    assert version.strip() == "(3, 11)"


@pytest.mark.parametrize("lock", sorted(ENVS.glob("*.lock")), ids=lambda path: path.name)
def test_a_committed_lock_has_hashes_and_no_address(lock: Path):
    text = lock.read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") >= text.count("==")
    for needed in ("msgpack==", "pyzmq==", "numpy=="):
        assert f"\n{needed}" in f"\n{text}"
