"""CPU builds of torch: taken from where the user's wheels and index are, and from torch's own index only after that."""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from venv_kit import House, Index, make_settings

from upx.errors import HashMismatchError, NetworkError, NoSuchVersionError
from upx.venvs.builder import EnvBuilder
from upx.venvs.failures import Context
from upx.venvs.uv import Uv

if TYPE_CHECKING:
    from upx.venvs.venv import Progress

CPU = "torch==2.13.0+cpu ; platform_machine == 'x86_64'" + " \\\n    --hash=sha256:" + "0" * 64 + "\n"
PLAIN = CPU.replace("+cpu", "")
BACKEND = ["--torch-backend", "cpu"]
# What uv says, by where it was told to look.
LACKS = "No solution found when resolving dependencies"
OFF = "Because torch was not found in the cache, and the network was disabled"
MISMATCH = "Hash mismatch for `torch==2.13.0`"
AWAY = "error sending request for url"


@dataclass
class FakeUv:
    """A program that writes its arguments down and answers each run with the next of ``answers``; "" is success."""

    folder: Path

    def uv(self, *answers: str, wheelhouse: bool = False, offline: bool = False) -> Uv:
        script = self.folder / "uv"
        script.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\nlog = pathlib.Path({str(self.folder / 'log')!r})\n"
            "runs = log.read_text().splitlines() if log.exists() else []\n"
            "log.write_text('\\n'.join([*runs, ' '.join(sys.argv[1:])]) + '\\n')\n"
            f"answer = {list(answers)!r}[len(runs)]\nprint(answer)\nsys.exit(bool(answer))\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        about = Context("convert", "3.11", self.folder / "convert.lock", (self.folder,))
        wheels = self.folder / "wheels" if wheelhouse else None
        return Uv(script, {}, about, self.folder, _ignore, wheelhouse=wheels, offline=offline)

    def lock(self, *texts: str) -> list[Path]:
        paths = [self.folder / f"{number}.lock" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return paths

    def runs(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "log").read_text().splitlines()]


def _ignore(_progress: Progress) -> None:
    """Nobody watches."""


@pytest.fixture
def fake(tmp_path: Path) -> FakeUv:
    return FakeUv(tmp_path)


def asks_torch(run: list[str]) -> bool:
    return run[-2:] == BACKEND


def test_a_lock_with_the_plain_torch_never_asks_torchs_index(fake: FakeUv) -> None:
    with pytest.raises(NoSuchVersionError):
        fake.uv(LACKS).sync(Path("python"), fake.lock(PLAIN, "numpy==2.0\n"))
    assert [asks_torch(run) for run in fake.runs()] == [False]


def test_a_lock_with_a_cpu_build_asks_torchs_index_once_the_users_lacks_it(fake: FakeUv) -> None:
    fake.uv(LACKS, "").sync(Path("python"), fake.lock("numpy==2.0\n", CPU))
    assert [asks_torch(run) for run in fake.runs()] == [False, True]


def test_an_index_that_has_the_build_is_enough(fake: FakeUv) -> None:
    fake.uv("").sync(Path("python"), fake.lock(CPU))
    assert [asks_torch(run) for run in fake.runs()] == [False]


def test_the_wheelhouse_is_asked_alone_then_with_the_index_then_with_torchs(fake: FakeUv) -> None:
    fake.uv(LACKS, LACKS, "", wheelhouse=True).sync(Path("python"), fake.lock(CPU))
    alone, mixed, last = fake.runs()
    assert ("--no-index" in alone, "--no-index" in mixed, "--no-index" in last) == (True, False, False)
    assert [asks_torch(run) for run in (alone, mixed, last)] == [False, False, True]
    assert all("--find-links" in run for run in (alone, mixed, last))


def test_offline_the_cache_is_asked_for_what_came_from_torchs_index_too(fake: FakeUv) -> None:
    fake.uv(OFF, "", offline=True).sync(Path("python"), fake.lock(CPU))
    assert [asks_torch(run) for run in fake.runs()] == [False, True]
    assert all("--offline" in run for run in fake.runs())


def test_what_another_place_cannot_mend_is_not_tried_there(fake: FakeUv) -> None:
    with pytest.raises(HashMismatchError):
        fake.uv(MISMATCH).sync(Path("python"), fake.lock(CPU))
    assert len(fake.runs()) == 1


def test_the_last_places_failure_is_the_error(fake: FakeUv) -> None:
    with pytest.raises(NetworkError) as caught:
        fake.uv(LACKS, AWAY).sync(Path("python"), fake.lock(CPU))
    assert "UPX_WHEELHOUSE" in caught.value.hint


def test_a_repair_looks_in_the_same_places(fake: FakeUv) -> None:
    (lock,) = fake.lock(CPU)
    fake.uv(LACKS, "").fetch(Path("python"), lock, cache=fake.folder / "cache")
    first, second = fake.runs()
    assert (first[1:3], asks_torch(first), asks_torch(second)) == (["pip", "install"], False, True)


def test_a_wheelhouse_with_the_build_alone_and_an_index_with_the_rest_make_an_environment(tmp_path: Path) -> None:
    rest, torch = House(tmp_path / "rest"), House(tmp_path / "torch")
    wheels = [torch.add("torch", version="1.0+cpu"), rest.add("alpha")]
    with Index(rest) as index:
        settings = make_settings(tmp_path, offline=False, index=index.url, wheelhouse=torch.folder)
        builder = EnvBuilder(settings)
        venv = builder.ensure(rest.spec(wheels=wheels))
    assert (venv.site_packages / "torch" / "data.bin").is_file()
    assert (venv.site_packages / "alpha" / "data.bin").is_file()
    assert builder.check(venv, hashes=True) == []
