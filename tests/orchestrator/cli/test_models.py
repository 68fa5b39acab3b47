"""``upx models`` through the command line: what it prints, what it returns, what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fault_server import Content, FaultServer, Route
from PIL import Image
from shelf_kit import MANUAL, add_backend, asset_text, url

from upx.assets.fetch import FetchProgress
from upx.cli import _progress
from upx.cli._app import run
from upx.cli._console import Console
from upx.cli._downloads import Downloads, words
from upx.cli._progress import Display

BIG, SMALL = Content(2 << 20, seed=1), Content(5000, seed=2)


@pytest.fixture
def server():
    with FaultServer() as running:
        running.add("/big", Route(BIG))
        running.add("/small", Route(SMALL))
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("UPX_OFFLINE", "UPX_WEIGHTS", "UPX_STORE_CAP", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UPX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "home"


@pytest.fixture
def upx(home, capsys):
    def call(*line: str):
        code = run(list(line))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def mine(home, server):
    add_backend(
        home, asset_text(BIG, url(server.url("/big"))), asset_text(SMALL, url(server.url("/small")), role="net")
    )


def rows(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_list_shows_licence_size_scale_kind_and_what_is_here(upx, mine):
    code, out, err = upx("models")
    assert code == 0
    head, *lines = out.splitlines()
    assert head.split() == ["MODEL", "SCALE", "KIND", "SIZE", "HERE", "LICENCE"]
    (line,) = [line for line in lines if line.startswith("mine-x2")]
    assert line.split() == ["mine-x2", "x2", "regression", "2", "MiB", "-", "MIT"]
    assert "* asks to be accepted" in err
    assert [line for line in lines if line.startswith("tsdsr-mse") and "*" in line]
    assert not [line for line in lines if line.startswith("convert")]
    assert upx("models", "pull", "mine-x2")[0] == 0
    code, out, _ = upx("models", "--installed", "--json")
    found = {row["name"]: row for row in rows(out)}
    assert found["mine-x2"]["places"] == ["store"]
    assert "span-x4" not in found
    assert upx("models", "list", "--installed", "--json")[1] == out


def test_every_model_that_facts_are_known_of_is_described(upx):
    _, out, _ = upx("models", "--json")
    found = {row["name"]: row for row in rows(out)}
    families = [f"hitsr-{family}-x{scale}" for family in ("sir", "sng", "srf") for scale in (2, 3, 4)]
    assert {*families, *(f"hitsr-srf-x{scale}-df2k" for scale in (2, 3, 4))} <= set(found)
    assert {"tsdsr", "tsdsr-mse", "varsr", "span-x4", "realesrgan-x4plus"} <= set(found)
    assert all(row["licence"] and row["title"] and row["trained"] for row in found.values())
    _, out, _ = upx("models", "info", "hitsr-sir-x4", "--json")
    (detail,) = rows(out)
    assert detail["files"][0]["sha256"] == "bbde9d87436e4ed6650e33f71dd4d483ff5a663cf2d86104bc277abb5feb3708"
    _, out, _ = upx("models", "info", "tsdsr", "--json")
    (detail,) = rows(out)
    assert any(licence["gated"] and licence["noncommercial"] for licence in detail["licences"])
    assert all(row["sha256"] or row["unverified"] for row in detail["files"])


def test_info_says_which_place_won_and_why_and_how_to_bring_what_is_nowhere(upx, mine, home):
    _, out, _ = upx("models", "info", "mine")
    assert "absent  explicit: nothing was named; store: not pulled or imported" in out
    assert "→ upx models pull mine-x2" in out
    upx("models", "pull", "mine")
    _, out, _ = upx("models", "info", "mine")
    assert "here    store: came by url" in out
    assert str(home / "data" / "weights" / "models" / "mine-x2" / "weights.bin") in out
    assert f"sha256  {BIG.sha256}" in out


def test_pull_verify_du_rm_and_gc_tell_one_story(upx, mine):
    code, out, _ = upx("models", "pull", "mine", "--json")
    (row,) = rows(out)
    assert (code, row["status"], row["size"]) == (0, "pulled", BIG.size + SMALL.size)
    assert set(row["files"]) == {"weights.bin", "net.bin"}
    assert upx("models", "pull", "mine")[1].startswith("mine-x2 is here")
    code, out, _ = upx("models", "verify")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["ok", "ok"]
    code, out, _ = upx("models", "du", "--json")
    assert [(row["kind"], row["size"]) for row in rows(out)] == [
        ("usage", BIG.size + SMALL.size), ("store", BIG.size + SMALL.size),
    ]  # fmt: skip
    assert upx("models", "pin", "mine")[1] == "mine-x2 is never evicted\n"
    code, out, _ = upx("models", "gc", "--cap", "1KB", "--json")
    assert (code, rows(out)[0]["kept"]) == (0, ["mine-x2"])
    assert upx("models", "pin", "mine", "--remove")[0] == 0
    code, out, _ = upx("models", "rm", "mine", "--json")
    assert (code, rows(out)[0]["models"], rows(out)[0]["freed"]) == (0, ["mine-x2"], BIG.size + SMALL.size)
    code, _, err = upx("models", "rm", "mine")
    assert "nothing of mine-x2 is in the store" in err


def test_the_doctor_looks_at_the_store(upx, mine, home):
    upx("models", "pull", "mine")
    _, out, _ = upx("doctor")
    assert f"ok    weights: 1 models, 2 MiB in {home / 'data' / 'weights'}" in out
    path = home / "data" / "weights" / "models" / "mine-x2" / "net.bin"
    path.unlink()
    path.symlink_to("/etc/hostname")
    code, out, _ = upx("doctor")
    assert code == 5
    assert "fail  weights: mine-x2: net.bin is a link that leads out of the store" in out
    assert "→ upx models pull mine-x2 mends it" in out


def test_a_cap_in_the_settings_holds_at_every_pull(upx, mine, home, server, monkeypatch):
    add_backend(home, asset_text(SMALL, url(server.url("/small"))), name="other")
    assert upx("models", "pull", "mine")[0] == 0
    monkeypatch.setenv("UPX_STORE_CAP", "1MB")
    code, out, _ = upx("models", "pull", "other", "--json")
    assert (code, [row["kind"] for row in rows(out)]) == (0, ["pulled", "removed"])
    assert rows(out)[1]["models"] == ["mine-x2"]
    _, out, _ = upx("models", "--installed", "--json")
    assert {row["name"] for row in rows(out)} & {"mine-x2", "other-x2"} == {"other-x2"}


def test_a_model_that_no_backend_names_any_more_is_seen_unpinned_and_removed(upx, mine, home):
    upx("models", "pull", "mine")
    upx("models", "pin", "mine")
    (home / "data" / "backends" / "mine").rename(home / "elsewhere")
    code, out, _ = upx("models", "verify")
    assert code == 0
    assert "upx models rm mine-x2 removes it" in out
    assert upx("models", "pin", "mine-x2", "--remove")[0] == 0
    code, out, _ = upx("models", "rm", "mine-x2")
    assert (code, out.splitlines()[0]) == (0, "removed mine-x2")


def test_a_file_of_ones_own_is_never_called_the_released_one(upx, mine, home, monkeypatch):
    folder = home / "own" / "mine-x2"
    folder.mkdir(parents=True)
    for name in ("weights.bin", "net.bin"):
        (folder / name).write_bytes(b"mine")
    monkeypatch.setenv("UPX_WEIGHTS", str(folder.parent))
    code, out, _ = upx("models", "verify", "mine", "--json")
    assert (code, {row["status"] for row in rows(out)}) == (0, {"unverified"})
    assert all("not the released file" in row["message"] for row in rows(out))


def test_a_damaged_model_is_listed_as_that(upx, mine, home):
    upx("models", "pull", "mine")
    (home / "data" / "weights" / "blobs" / BIG.sha256).unlink()
    _, out, _ = upx("models", "--json")
    (row,) = [row for row in rows(out) if row["name"] == "mine-x2"]
    assert (row["damaged"], row["installed"]) == (True, False)
    assert [line for line in upx("models")[1].splitlines() if line.startswith("mine-x2") and "damaged" in line]


def test_a_failure_names_the_model_the_reason_and_the_next_step(upx, mine, server):
    server.routes["/small"].statuses = [404] * 9
    code, out, err = upx("models", "pull", "mine", "--json")
    assert code == 5
    assert "404" in err
    (row,) = rows(out)
    assert (row["status"], row["code"]) == ("failed", "Fetch")
    assert row["hint"]
    code, _, err = upx("models", "verify", "mine")
    assert code == 5


def test_offline_never_reaches_out_and_says_how_to_bring_it(upx, mine, server, monkeypatch):
    for line, setting in ((("models", "pull", "mine", "--offline"), "0"), (("models", "pull", "mine"), "1")):
        monkeypatch.setenv("UPX_OFFLINE", setting)
        code, _, err = upx(*line)
        assert code == 5
        assert "the network is off" in err
        assert "upx models pull mine-x2 where there is a network" in err
    assert not server.routes["/big"].seen


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("models", "pull"), "nothing was named"),
        (("models", "pull", "nowhere"), "nowhere"),
        (("models", "pull", "--bundle", "nowhere"), "no bundle"),
        (("models", "pull", "--manifest", "/nowhere.toml"), "nowhere.toml"),
        (("models", "gc", "--cap", "much"), "--cap much is no size"),
        (("models", "gc", "--cap", "9" * 400), "is no size"),
        (("models", "info", "nowhere"), "nowhere"),
        (("models", "rm", "nowhere"), "nowhere"),
        (("models", "verify", "nowhere"), "nowhere"),
        (("models", "importt"), "importt"),
    ],
)
def test_a_wrong_request_is_exit_code_2_with_a_hint(upx, line, message):
    code, out, err = upx(*line)
    assert (code, out) == (2, "")
    assert message in err
    assert "→" in err


def test_a_file_that_only_a_person_can_get_is_told_with_the_command_to_import_it(upx, home):
    add_backend(home, asset_text(None, MANUAL))
    code, _, err = upx("models", "pull", "mine")
    assert code == 5
    assert "the author's page" in err
    assert "upx models import FILE --as mine-x2:weights" in err


def test_setup_says_which_weights_are_missing_and_how_to_bring_them(upx, home, server):
    shared = home / "data"
    add_backend(home, asset_text(None, MANUAL), asset_text(BIG, url(server.url("/big")), role="net"), name="lacking")
    lock = Path(__file__).resolve().parents[3] / "envs" / "nearest.lock"
    shutil.copy(lock, shared / "backends" / "lacking" / "env.lock")
    code, out, err = upx("setup", "lacking")
    assert code == 0
    assert out.startswith("lacking is ready")
    assert "upx: lacking-x2 still lacks weights.bin\n  → get it from the author's page" in err
    assert "upx: lacking-x2 still lacks net.bin\n  → upx models pull lacking-x2" in err
    assert upx("models", "pull", "lacking")[0] == 5
    _, _, err = upx("setup", "lacking")
    assert "net.bin" not in err


def test_backends_that_only_keep_weights_say_so_and_run_nothing(upx, home, tmp_path):
    add_backend(home, asset_text(None, MANUAL), name="keeps", more='kind = "weights"')
    _, out, _ = upx("backends")
    assert [line for line in out.splitlines() if line.startswith("keeps") and "weights only" in line]
    picture = tmp_path / "p.png"
    from PIL import Image

    Image.new("RGB", (8, 8)).save(picture)
    code, _, err = upx("up", str(picture), "-b", "keeps", "-o", str(tmp_path / "o.png"))
    assert code == 5
    assert "cannot run them yet" in err
    code, _, err = upx("setup", "keeps")
    assert code == 5
    code, _, err = upx("up", str(picture), "-b", "convert")
    assert code == 2
    assert "turns no pictures" in err


def progress(key: str, done: int, total: int, state: str = "fetching", **more) -> FetchProgress:
    return FetchProgress(key, f"m: {key}", done, total, more.get("resumed", 0), state, more.get("note", ""))


def test_downloads_are_counted_each_and_together_with_their_rate():
    downloads = Downloads()
    for second in range(4):
        downloads.update(progress("a", second << 20, 10 << 20), float(second))
        downloads.update(progress("b", second << 20, 6 << 20), float(second))
    assert (downloads.done, downloads.total) == (6 << 20, 16 << 20)
    assert downloads.rate() == pytest.approx(2 << 20, rel=0.4)
    assert downloads.line().startswith("fetching weights: 6 MiB of 16 MiB of 2 files, ")
    assert "left" in downloads.line()
    downloads.update(progress("a", 10 << 20, 10 << 20, "done"), 5.0)
    downloads.update(progress("b", 0, 0, "failed", note="404"), 5.0)
    assert not downloads.running


@pytest.mark.parametrize(
    ("state", "said"),
    [("waiting", "another process"), ("retrying", "(503)"), ("checking", "checking"), ("failed", "(503)"),
     ("resolving", "asking"), ("fetching", "3 MiB were here")],
)  # fmt: skip
def test_each_state_of_a_download_has_its_words(state, said):
    assert said in words(progress("a", 1, 2, state, note="503", resumed=3 << 20))


def test_a_log_gets_a_line_every_few_seconds(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "LINE_EVERY_S", 0.0)
    with Display(Console()) as display:
        display.event(progress("a.bin", 1 << 20, 4 << 20))
    assert "upx: fetching weights: 1 MiB of 4 MiB" in capsys.readouterr().err


def test_setup_says_what_opens_a_gate(upx, home, server):
    gate = (
        'unverified = "none was published"\nlicence = { name = "Mine", link = "https://hub.example/x", gated = true }'
    )
    add_backend(home, asset_text(None, url(server.url("/big")), digest=gate), name="lacking")
    lock = Path(__file__).resolve().parents[3] / "envs" / "nearest.lock"
    shutil.copy(lock, home / "data" / "backends" / "lacking" / "env.lock")
    _, _, err = upx("setup", "lacking")
    assert "gated: ask for access at https://hub.example/x, then set HF_TOKEN; add --accept-licence" in err
    _, out, _ = upx("backends", "info", "lacking")
    assert "(https://hub.example/x, --accept-licence)" in out


def test_nothing_is_fetched_for_a_job_whose_other_files_only_a_person_can_get(upx, home, server, tmp_path):
    add_backend(home, asset_text(None, MANUAL), asset_text(BIG, url(server.url("/big")), role="net"))
    picture = tmp_path / "p.png"
    Image.new("RGB", (4, 4)).save(picture)
    code, _, err = upx("up", str(picture), "-b", "mine")
    assert code == 5
    assert "the author's page" in err
    assert server.routes["/big"].gets == 0
