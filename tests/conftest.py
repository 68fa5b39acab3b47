"""What all tests share: one home with real environments, photographs, and the check that a test leaves nothing behind.

Loaded by the run on Python 3.9 too, which has neither the host's packages nor upx: imports stand in functions.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from upx.config import Settings

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}
PROC = Path("/proc")
# How long a process or a descriptor may take to go after its test has ended.
LEAVE_S = 5.0
# Started once by the standard library for as long as this process lives.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


# ---------------------------------------------------------------------------------------------- skips


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skipped test has failed: a missing file, environment or package there is a fault to mend."""
    outcome = yield
    report = outcome.get_result()
    may_skip = item.get_closest_marker("gpu") is not None or hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be: {report.longrepr}"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a module that skips itself when it is collected."""
    outcome = yield
    report = outcome.get_result()
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be: {report.longrepr}"


# ---------------------------------------------------------------------------------------------- leaks


@pytest.fixture(scope="session")
def _run_folder(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The folder of this run's temporary files, as it stands in a worker's command line."""
    return os.fsencode(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest, _run_folder: bytes) -> Iterator[None]:
    """After each test: no process of its own still lives, and no descriptor of its own is still open.

    Detached workers are found too, by this run's folder in their command line. A module marked ``shared_workers``
    is looked at when it ends.
    """
    if request.node.get_closest_marker("shared_workers"):
        yield
    else:
        yield from _looked_after(_run_folder)


@pytest.fixture(autouse=True, scope="module")
def module_leaves_nothing_behind(_run_folder: bytes) -> Iterator[None]:
    """The same after each module."""
    yield from _looked_after(_run_folder)


def _looked_after(run_folder: bytes) -> Iterator[None]:
    if not PROC.is_dir():
        yield
        return
    processes, descriptors = set(_our_processes(run_folder)), _descriptors()
    yield
    left = _wait_for_nothing(lambda: {p: c for p, c in _our_processes(run_folder).items() if p not in processes})
    assert not left, f"processes left behind: {left}"
    opened = _wait_for_nothing(lambda: {f: t for f, t in _descriptors().items() if descriptors.get(f) != t})
    assert not opened, f"descriptors left open: {opened}"


def _wait_for_nothing(look: Callable[[], dict[int, str]]) -> dict[int, str]:
    """What ``look`` still finds after LEAVE_S; a second look comes after what was only forgotten is collected."""
    found = look()
    if found:
        gc.collect()
    deadline = time.monotonic() + LEAVE_S
    while found and time.monotonic() < deadline:
        time.sleep(0.02)
        found = look()
    return found


def _our_processes(run_folder: bytes) -> dict[int, str]:
    """pid -> command line of our descendants, and of any process that names this run's folder."""
    parents: dict[int, int] = {}
    commands: dict[int, bytes] = {}
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            try:
                # The name in brackets may hold spaces and brackets of its own.
                parents[int(entry.name)] = int((PROC / entry.name / "stat").read_bytes().rpartition(b")")[2].split()[1])
                commands[int(entry.name)] = (PROC / entry.name / "cmdline").read_bytes()
            except OSError:
                continue  # gone between the listing and the look
    return {
        pid: command.replace(b"\0", b" ").decode(errors="replace") or "(zombie)"
        for pid, command in commands.items()
        if pid != os.getpid()
        and (run_folder in command or _descends(pid, parents))
        and not any(helper.encode() in command for helper in HELPERS)
    }


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while (pid := parents.get(pid, 0)) > 1:
        if pid == os.getpid():
            return True
    return False


def _descriptors() -> dict[int, str]:
    """Descriptor -> what it is; the one that lists them has gone when it is looked at."""
    found: dict[int, str] = {}
    for link in (PROC / "self" / "fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except OSError:
            continue
    return found


# ---------------------------------------------------------------------------------------------- homes


@pytest.fixture(scope="session")
def upx_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One UPX_HOME for all tests that need real environments; uv's cache stays the machine's, so builds are quick.

    A test that damages files makes its own, with a private uv cache: files of an environment are links into it.
    """
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def upx_env(upx_home: Path) -> dict[str, str]:
    """The environment in which a test runs upx: the user's, with no settings of ours but the home and the wheels."""
    ours = {name for name in os.environ if name.startswith("UPX_") and name != "UPX_WHEELHOUSE"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "UPX_HOME": str(upx_home)}


@pytest.fixture(scope="session")
def settings(upx_env: dict[str, str]) -> Settings:
    """The settings of that environment."""
    from upx.config import Settings

    return Settings.from_env(upx_env)


@pytest.fixture(scope="session")
def backend_python(settings: Settings) -> Callable[[str], Path]:
    """``backend_python(name)``: the interpreter of that backend's environment, built when first asked for."""
    from upx.catalog import Catalog
    from upx.venvs.builder import EnvBuilder

    catalog, builder = Catalog(settings), EnvBuilder(settings)
    return lambda name: builder.ensure(catalog.backend(name).env, flavour="auto").python


@pytest.fixture(scope="session")
def venvs(settings: Settings, backend_python: Callable[[str], Path]) -> Path:
    """The home's folder of environments with that of nearest, for machines that link to it and change nothing in it."""
    backend_python("nearest")
    return settings.venvs_dir


# ---------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="session")
def photograph() -> Path:
    """The photograph of the README: 600 x 400, JPEG."""
    return ROOT / "tests" / "data" / "coffee.jpg"


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Path]:
    """``photo("astronaut.png")``: a file that scikit-image ships, so that no test needs the network."""
    package = importlib.util.find_spec("skimage")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "data"

    def find(name: str) -> Path:
        path = folder / name
        assert path.is_file(), f"scikit-image ships no {name}; it has {sorted(p.name for p in folder.iterdir())}"
        return path

    return find


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden files and trained weights that lie beside the project, or where UPX_SHARED says."""
    folder = Path(os.environ.get("UPX_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set UPX_SHARED to the folder of golden files")
    return folder
