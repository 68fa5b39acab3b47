"""What a box answers to its workers: files of its own, and nothing that a host far away could point at."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fault_server import Content
from shelf_kit import add_backend, asset_text, make_shelf

from upx.assets.obtain import Need
from upx.assets.receipts import Origin
from upx.errors import ParameterError, UnknownBackendError, UsageError, WeightsError
from upx.serving import keeper as keeper_module
from upx.serving.keeper import Keeper, Line, Uses
from upx.specs import ParameterSpec
from upx_protocol.errors import BadInputError, FatalError, TransientError
from upx_protocol.messages import Load
from upx_protocol.steward import Steward

if TYPE_CHECKING:
    import socket

PARAMETERS = (
    ParameterSpec("chop", "bool", False, applies="load"),
    ParameterSpec("mode", "str", "fast", choices=("fast", "slow"), applies="load"),
    ParameterSpec("folder", "str", "", applies="load"),
    ParameterSpec("strength", "float", 1.0),
)


def question(**changes) -> dict:
    return {"model": "mine-x2", "weights": "", "precision": "auto", "threads": 0, "params": {}, **changes}


@pytest.fixture
def shelf(tmp_path):
    content = Content(100)
    add_backend(tmp_path, asset_text(content, '{ kind = "manual", where = "the author" }'))
    (tmp_path / "weights" / "mine-x2").mkdir(parents=True)
    (tmp_path / "weights" / "mine-x2" / "weights.bin").write_bytes(content.read(0, 100))
    return make_shelf(tmp_path, UPX_WEIGHTS=str(tmp_path / "weights"))


@pytest.fixture
def keeper(shelf, tmp_path):
    spec = replace(
        shelf.catalog.backend("mine"), parameters=PARAMETERS, devices=("cuda", "cpu"), precisions=("fp16", "fp32")
    )
    # What `model` would mean to a command on this machine: the family's default.
    two = (replace(spec.models[0], aliases=("family",)), replace(spec.models[0], name="mine-x4"))
    spec = replace(spec, models=two, aliases=("ours",))
    return Keeper(spec, shelf, site_packages=tmp_path, offline=True, accept_licence=False)


@pytest.fixture
def uses():
    made = Uses()
    yield made
    made.close()


def put(shelf, tmp_path, *names: str) -> None:
    """Put the weights into the store as those of each of these models."""
    backend = shelf.catalog.backend("mine")
    for name in names:
        model = replace(backend.models[0], name=name)
        source = tmp_path / "weights" / "mine-x2" / "weights.bin"
        shelf.obtainer().keep(Need(backend, model, model.assets[0]), source, Origin({"kind": "import"}))


def test_a_model_is_answered_with_this_machines_files(keeper, uses, tmp_path) -> None:
    answer = keeper.answer(question(), "cpu", uses)
    assert answer["files"] == {"weights": str(tmp_path / "weights" / "mine-x2" / "weights.bin")}
    assert len(answer["weights"]) == 64
    assert answer["threads"] >= 1
    assert keeper.answer(question(weights=answer["weights"]), "cpu", uses) == answer


@pytest.mark.parametrize("name", ["mine-x3", "nearest-x4", "../mine-x2", "", "mine", "ours", "family", "MINE-X2"])
def test_a_model_that_this_box_does_not_serve_is_refused(keeper, uses, name) -> None:
    with pytest.raises((UnknownBackendError, UsageError)):
        keeper.answer(question(model=name), "cpu", uses)


def test_what_a_worker_has_loaded_is_kept_until_it_loads_another_and_no_longer(keeper, uses, shelf, tmp_path) -> None:
    put(shelf, tmp_path, "mine-x2", "mine-x4")
    keeper.answer(question(), "cpu", uses)
    assert shelf.store.in_use("mine-x2")
    for _ in range(2):
        keeper.answer(question(model="mine-x4"), "cpu", uses)
        assert (shelf.store.in_use("mine-x2"), shelf.store.in_use("mine-x4")) == (False, True)
    uses.close()
    assert not shelf.store.in_use("mine-x4")


def test_a_load_that_fails_keeps_what_is_loaded_and_what_was_asked_for(keeper, uses, shelf, tmp_path) -> None:
    put(shelf, tmp_path, "mine-x2", "mine-x4")
    keeper.answer(question(), "cpu", uses)
    with pytest.raises(WeightsError):
        keeper.answer(question(model="mine-x4", weights="f" * 64), "cpu", uses)
    assert all(map(shelf.store.in_use, ("mine-x2", "mine-x4")))
    with pytest.raises(UsageError):
        keeper.answer(question(precision="int4"), "cpu", uses)
    assert (shelf.store.in_use("mine-x2"), shelf.store.in_use("mine-x4")) == (True, False)


def test_what_had_to_be_fetched_first_is_kept_too(keeper, uses, shelf, tmp_path, monkeypatch) -> None:
    files = keeper_module.Readying.files

    def fetched(readying, finder):
        put(shelf, tmp_path, "mine-x2")
        return files(readying, finder)

    monkeypatch.setattr(keeper_module.Readying, "files", fetched)
    keeper.answer(question(), "cpu", uses)
    assert shelf.store.in_use("mine-x2")


def test_a_worker_that_has_gone_keeps_nothing(keeper, shelf, tmp_path) -> None:
    put(shelf, tmp_path, "mine-x2")
    line = Line(keeper, "cpu")
    with line.theirs.dup() as end:
        end.settimeout(5.0)
        line.start()
        end.sendall(json.dumps(question()).encode() + b"\n")
        with end.makefile("rb") as lines:
            assert json.loads(lines.readline())["files"]
        assert shelf.store.in_use("mine-x2")
    line._thread.join(5.0)
    assert not shelf.store.in_use("mine-x2")


def test_a_fetch_keeps_nobody_from_a_model_that_is_here(keeper, shelf, tmp_path, monkeypatch) -> None:
    put(shelf, tmp_path, "mine-x4")
    files, fetching, fetched = keeper_module.Readying.files, threading.Event(), threading.Event()

    def slow(readying, finder):
        if readying.model.name == "mine-x2":
            fetching.set()
            assert fetched.wait(10.0)
        return files(readying, finder)

    def load(name: str):
        with closing(Uses()) as uses:
            return keeper.answer(question(model=name), "cpu", uses)

    monkeypatch.setattr(keeper_module.Readying, "files", slow)
    with ThreadPoolExecutor(2) as threads:
        missing = threads.submit(load, "mine-x2")
        try:
            assert fetching.wait(10.0)
            assert threads.submit(load, "mine-x4").result(5.0)["files"]
            assert not missing.done()
        finally:
            fetched.set()
        assert missing.result(10.0)["files"]


def test_weights_that_are_not_the_hosts_are_refused_with_both_digests(keeper, uses) -> None:
    ours = keeper.answer(question(), "cpu", uses)["weights"]
    with pytest.raises(WeightsError, match=f"{ours[:12]}, the host has {'f' * 12}"):
        keeper.answer(question(weights="f" * 64), "cpu", uses)


def test_weights_that_are_not_here_are_named_and_not_waited_for(keeper, uses, tmp_path) -> None:
    (tmp_path / "weights" / "mine-x2" / "weights.bin").unlink()
    with pytest.raises(WeightsError, match=r"weights\.bin"):
        keeper.answer(question(), "cpu", uses)


def test_a_parameter_that_could_name_a_file_is_refused(keeper, uses) -> None:
    for value in ("/etc/passwd", "../x", "harmless"):
        with pytest.raises(ParameterError, match="folder is not for hosts of other machines"):
            keeper.answer(question(params={"folder": value}), "cpu", uses)
    assert keeper.answer(question(params={"folder": ""}), "cpu", uses)["params"]["folder"] == ""


def test_choices_and_numbers_are_taken_and_checked(keeper, uses) -> None:
    params = keeper.answer(question(params={"chop": True, "mode": "slow"}), "cpu", uses)["params"]
    assert params == {"chop": True, "mode": "slow", "folder": ""}
    with pytest.raises(ParameterError):
        keeper.answer(question(params={"mode": "/etc/passwd"}), "cpu", uses)


def test_what_is_no_load_parameter_of_the_backend_is_passed_over(keeper, uses) -> None:
    assert keeper.answer(question(params={"strength": 0.5, "network": "/x"}), "cpu", uses)["params"] == {
        "chop": False, "mode": "fast", "folder": "",
    }  # fmt: skip


@pytest.mark.parametrize(("device", "wanted", "got"), [
    ("cpu", "auto", "fp32"), ("cuda:0", "auto", "fp16"), ("cuda:0", "fp32", "fp32"), ("cpu", "fp16", "fp16"),
])  # fmt: skip
def test_a_precision_that_is_left_to_the_box_is_the_one_of_its_device(keeper, uses, device, wanted, got) -> None:
    assert keeper.answer(question(precision=wanted), device, uses)["precision"] == got


def test_a_precision_that_the_backend_does_not_have_is_refused(keeper, uses) -> None:
    with pytest.raises(UsageError, match="does not compute in int4"):
        keeper.answer(question(precision="int4"), "cpu", uses)


def test_threads_that_are_named_are_taken(keeper, uses) -> None:
    assert keeper.answer(question(threads=3), "cpu", uses)["threads"] == 3


# ---------------------------------------------------------------------------------------------- the line


class Double:
    """A keeper that says what it is told to."""

    def __init__(self, answer) -> None:
        self.asked: list[dict] = []
        self._answer = answer

    def answer(self, asked: dict, _device: str, _uses: Uses) -> dict:
        self.asked.append(asked)
        return self._answer()


def line_of(answer) -> tuple[Double, socket.socket]:
    """A line that is being answered, and the worker's end of it."""
    double = Double(answer)
    line = Line(double, "cpu")
    end = line.theirs.dup()
    end.settimeout(5.0)
    line.start()
    return double, end


LOAD = Load(1, "key", "mine-x2", precision="auto")
ANSWER = {"files": {"weights": "/w"}, "weights": "a" * 64, "precision": "fp32", "threads": 2, "params": {"chop": True}}


def test_the_worker_loads_what_the_keeper_answers() -> None:
    double, end = line_of(lambda: ANSWER)
    steward = steward_of(end)
    for _ in range(2):
        load = steward.resolve(LOAD, lambda *_: None)
        assert (load.files, load.precision, load.threads) == ({"weights": "/w"}, "fp32", 2)
    assert [asked["model"] for asked in double.asked] == ["mine-x2"] * 2
    close(steward)


def steward_of(end: socket.socket) -> Steward:
    end.settimeout(None)
    return Steward(end.detach())


def close(steward: Steward) -> None:
    steward._lines.close()
    steward._socket.close()


def raiser(error: Exception):
    def answer() -> dict:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (WeightsError("they are elsewhere", hint="bring them"), BadInputError, "they are elsewhere (bring them)"),
        (OSError(5, "the disk"), TransientError, "OSError"),
    ],
)
def test_a_model_that_cannot_be_had_is_said_to_the_worker_and_the_line_lives_on(error, kind, words, caplog) -> None:
    _, end = line_of(raiser(error))
    steward = steward_of(end)
    with caplog.at_level(logging.CRITICAL, "upx.serve"):
        for _ in range(2):
            with pytest.raises(kind) as caught:
                steward.resolve(LOAD, lambda *_: None)
            assert words in str(caught.value)
    close(steward)


def test_a_long_fetch_is_told_as_progress(monkeypatch) -> None:
    monkeypatch.setattr(keeper_module, "STILL_S", 0.02)
    seen, enough = [], threading.Event()

    def answer() -> dict:
        assert enough.wait(5.0)
        return ANSWER

    def progress(*words) -> None:
        seen.append(words)
        enough.set()

    _, end = line_of(answer)
    steward = steward_of(end)
    assert steward.resolve(LOAD, progress).threads == 2
    assert seen[0] == ("fetching", 0.0, 0.0)
    close(steward)


@pytest.mark.parametrize(
    "line",
    [
        *(b"\xff\xfe\n", b"{\n", b"[]\n", b"3\n", b"null\n", b"{}\n", b'{"params": 5}\n'),
        b"[" * 100_000 + b"\n",
        b"x" * (keeper_module.MAX_LINE + 1),
    ],
    ids=["bytes", "half", "list", "number", "null", "empty", "params", "nested", "endless"],
)
def test_a_line_that_is_no_question_ends_the_line_and_nothing_else(line) -> None:
    double, end = line_of(lambda: ANSWER)
    with end, suppress(ConnectionResetError, BrokenPipeError):  # where it did not even read to the end
        end.sendall(line)
        assert end.recv(1) == b""
    assert double.asked == []


def test_a_question_without_its_words_is_answered_as_a_fault(caplog, keeper) -> None:
    line = Line(keeper, "cpu")
    with line.theirs.dup() as end, caplog.at_level(logging.CRITICAL, "upx.serve"):
        end.settimeout(5.0)
        line.start()
        end.sendall(b'{"params": {}}\n')
        assert json.loads(end.makefile("rb").readline())["failure"] == "transient"


def test_a_worker_whose_keeper_has_gone_says_so() -> None:
    line = Line(Double(lambda: ANSWER), "cpu")
    steward = steward_of(line.theirs.dup())
    line.close()
    with pytest.raises(FatalError, match="nobody keeps"):
        steward.resolve(LOAD, lambda *_: None)
    close(steward)
