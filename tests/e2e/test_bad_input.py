"""Bad input through the real command: one line that says what, one that says what to do, the right exit code."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.shared_workers
DEADLINE_S = 60
CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: without them root obeys modes, as everybody does
PR_CAPBSET_DROP = 24


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int) -> bytes:
    """A PNG that promises that size and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def as_everybody() -> None:
    """Before exec: no right to override modes."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in CAPABILITIES:
            assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def on_a_small_disk() -> None:
    """Before exec: no file grows beyond 20 kB, which is told as a full disk is."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.fixture(scope="module")
def home(upx_env, tmp_path_factory) -> dict[str, str]:
    """A home whose environments are shared with other tests, and whose workers and backends are its own."""
    shared, own = Path(upx_env["UPX_HOME"], "data"), tmp_path_factory.mktemp("own")
    for name in ("venvs", "stage"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        (own / "data").mkdir(exist_ok=True)
        (own / "data" / name).symlink_to(shared / name, target_is_directory=True)
    for name, more in (("mine", "zzz = 1"), ("span", "")):
        folder = own / "data" / "backends" / name
        folder.mkdir(parents=True)
        (folder / "backend.toml").write_text(
            f'schema = 1\nname = "{name}"\n{more}\ndefault_model = "{name}-x2"\n'
            f'[[models]]\nname = "{name}-x2"\nscale = 2\n'
        )
    return {**upx_env, "UPX_HOME": str(own)}


@pytest.fixture(scope="module")
def call(home):
    """Run the command; its one worker serves the whole module and is ended with it."""

    def run(folder: Path, *words: str, **more) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "upx", *words]
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
        return subprocess.run(command, timeout=DEADLINE_S, check=False, cwd=folder, env=home, **given)

    yield run
    ended = run(Path(home["UPX_HOME"]), "stop", "--all", "--force")
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a good picture, and one of each bad kind."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "good.png")
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "good.jpg")
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(tmp_path / "good.webp")
    whole = {name: (tmp_path / f"good.{name}").read_bytes() for name in ("png", "jpg", "webp")}
    for name, content in whole.items():
        (tmp_path / f"half.{name}").write_bytes(content[: len(content) // 2])
    (tmp_path / "words.png").write_text("no picture")
    (tmp_path / "zero.png").touch()
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000))
    (tmp_path / "hollow.png").write_bytes(png(5000, 5000))
    (tmp_path / "locked.png").write_bytes(whole["png"])
    (tmp_path / "locked.png").chmod(0)
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "none").mkdir()
    (tmp_path / "closed").mkdir(mode=0o555)
    return tmp_path


@dataclass(frozen=True)
class Case:
    """``words`` of the command, and how it must end: ``says`` is in its message, ``hints`` in its hint."""

    words: str
    code: int
    says: str
    hints: str
    before: Callable[[], None] | None = None


NEAREST = "-b nearest"
CASES = [
    Case(f"up words.png {NEAREST}", 4, "words.png: is not a picture", "give PNG"),
    Case(f"up half.png {NEAREST}", 4, "half.png: damaged or truncated", "again"),
    Case(f"up half.jpg {NEAREST}", 4, "half.jpg: damaged or truncated", "again"),
    Case(f"up half.webp {NEAREST}", 4, "half.webp: damaged or truncated", "again"),
    Case(f"up zero.png {NEAREST}", 4, "zero.png: is empty", "again"),
    Case(f"up none {NEAREST}", 4, "none: a folder without pictures", "one by one"),
    Case(f"up gone.png {NEAREST}", 4, "gone.png: no such file", "check"),
    Case(f"up loop.png {NEAREST}", 4, "loop.png: no such file", "check"),
    Case(f"up pipe.png {NEAREST}", 4, "pipe.png: is not a regular file", "name a picture"),
    Case(f"up locked.png {NEAREST}", 4, "locked.png: no permission", "mode", as_everybody),
    Case(f"up bomb.png {NEAREST}", 4, "100000 x 100000 pixels are more", "parts"),
    Case(f"up hollow.png {NEAREST}", 4, "hollow.png: damaged or truncated", "again"),
    Case(f"up - {NEAREST} -o x.png", 4, "stdin: is empty", "pipe"),
    Case(f"up good.png {NEAREST} -o absent/", 2, "absent is no folder", "mkdir"),
    Case(f"up good.png {NEAREST} -o good.jpg/", 2, "good.jpg is a file", "another folder"),
    Case(f"up good.png {NEAREST} -o closed/", 2, "closed cannot be written", "another folder", as_everybody),
    Case(f"up good.png {NEAREST} -o good.png", 2, "overwrite the input", "-o"),
    Case(f"up good.png {NEAREST} -o big.png", 4, "big.png: no space left", "free space", on_a_small_disk),
    Case(f"up good.png {NEAREST} -o big.jpg --quality 100", 4, "big.jpg: no space left", "free space", on_a_small_disk),
    Case(f"up good.png {NEAREST} -o big.gif", 2, ".gif cannot be written", "png"),
    Case(f"up good.png {NEAREST} -o {{nonsense}}.png", 2, "no field {nonsense}", "stem"),
    Case(f"up good.png good.jpg {NEAREST} -o one.png", 2, "2 inputs would go into one.png", "template"),
    Case("up good.png -b nearst", 2, "no backend or model is called 'nearst'", "did you mean nearest?"),
    Case("up good.png -n nearest-x9", 2, "no backend or model is called 'nearest-x9'", "did you mean nearest-x"),
    Case("up good.png -n nearest-x4 -s 3", 2, "no scale 3", "2, 3, 4"),
    Case("up good.png -b mine", 2, "unknown key zzz", "remove it"),
    Case("up good.png", 2, "two backends are called 'span'", "rename or remove"),
    Case("up good.png -n span-x4", 2, "no backend or model is called 'span-x4'", "span"),
    Case(f"up good.png {NEAREST} -t 1", 2, "a tile of 1 pixels is too small", "--tile"),
    Case(f"up good.png {NEAREST} -t 48 --overlap 1000", 2, "too small with an overlap of 1000", "--overlap"),
    Case(f"up good.png {NEAREST} --set delay=soon", 2, "delay=soon is no float", "backends info"),
    Case(f"up good.png {NEAREST} --seed 99999999999999999999", 2, "a seed of 9999", "2**63"),
    Case(f"up good.png {NEAREST} --keep-alive 5mm", 2, "5mm is no time", "5m"),
    Case(f"up good.png {NEAREST} --keep-alive 99999999999d", 2, "keep_alive", "seconds"),
    Case(f"up good.png {NEAREST} -d cuda", 2, "does not run on cuda", "-d auto"),
    Case(f"up good.png {NEAREST} --on-exists perhaps", 2, "perhaps", "--help"),
    Case("stop nobody", 2, "no worker is called 'nobody'", "upx ps"),
    Case("setup nearest --flavour gpu", 2, "no flavour 'gpu'", "default"),
    Case("frobnicate", 2, "no verb 'frobnicate'", "--help"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_it_ends_with_one_line_its_next_step_and_nothing_half_written(call, folder, case) -> None:
    before = sorted(path.name for path in folder.iterdir())
    ended = call(folder, *case.words.split(), "--json", preexec_fn=case.before)
    said = ended.stderr.decode()
    assert ended.returncode == case.code, said
    (what, hint) = (line for line in said.splitlines() if not line.startswith("upx: environment"))
    assert what.startswith("upx: ")
    assert case.says in what
    assert hint.startswith("  → ")
    assert case.hints in hint
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert all(record["schema"] == 1 for record in records)
    told = records[0] if records[0]["kind"] == "error" else records[0]["error"]
    assert told["code"] != "Upx", "a fault of our own"
    assert case.says in told["message"]
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_good_ones_of_a_batch_are_done(call, folder) -> None:
    words = ["words.png", "good.png", "half.jpg", "bomb.png", "none", "gone.png", "good.jpg", ""]
    ended = call(folder, "up", *words, *NEAREST.split(), "-o", "{stem}_big{ext}")
    assert ended.returncode == 3
    assert ended.stdout.decode().split() == ["good_big.png", "good_big.jpg"]
    assert ended.stderr.decode().count("  → ") == 6
    with Image.open(folder / "good_big.png") as image:
        assert image.size == (256, 192)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5000, 3), (3, 5000)])
def test_the_smallest_and_the_longest_are_pictures(call, tmp_path, height, width) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    assert call(tmp_path, "up", "in.png", *NEAREST.split(), "-o", "out.png").returncode == 0
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels.repeat(4, 0).repeat(4, 1))


def test_names_that_scripts_stumble_over_are_names(call, folder) -> None:
    names = [
        "a b.png",
        "new\nline.png",
        "-dash.png",
        "{stem}.png",
        "ünï→日本.png",
        os.fsdecode(b"\xff\xfe.png"),
        "noext",
    ]
    for name in names:
        (folder / name).write_bytes((folder / "good.png").read_bytes())
    ended = call(folder, "up", *NEAREST.split(), "--json", "-o", "{stem}_big.png", "--", *names)
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [record["input"] for record in records[:-1]] == names
    assert all((folder / record["output"]).is_file() for record in records[:-1])


def test_a_picture_that_cannot_reach_standard_output_is_a_failure(call, folder) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = call(folder, "up", "good.png", *NEAREST.split(), "-o", "-", stdout=full)
    assert ended.returncode == 4
    assert b"standard output cannot be written: No space left on device" in ended.stderr
    assert b"unexpected" not in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("kept", ["[]", "null", '{"cut'])
def test_files_that_say_nothing_any_more_cost_nothing(call, home, folder, kept) -> None:
    for path in (Path(home["UPX_HOME"]) / "cache" / "manifests").glob("*.json"):
        path.write_text(kept)
    Path(home["UPX_HOME"], "state", "tiles.json").write_text(kept)
    Path(home["UPX_HOME"], "data", "licences.json").write_text(kept)
    ended = call(folder, "up", "good.png", *NEAREST.split(), "-o", "out.png")
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("how", ["overwrite", "skip", "rename", "error"])
def test_commands_that_race_for_one_output_each_do_what_was_asked(home, call, folder, how) -> None:
    command = [sys.executable, "-m", "upx", "up", "good.png", *NEAREST.split(), "-o", "r.png", "--on-exists", how]
    racing = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=home)
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=DEADLINE_S) for process in racing]
    codes, told = sorted(process.returncode for process in racing), b"".join(error for _, error in ended)
    assert codes[0] == 0, told
    if how == "error":
        assert set(codes[1:]) <= {2, 4}, told
    else:
        assert codes == [0, 0, 0], told
    written = sorted(path.name for path in folder.glob("r*.png"))
    assert written == (["r.png", "r_2.png", "r_3.png"] if how == "rename" else ["r.png"])
