"""The converter opens what torch saved and runs nothing of it, in its own environment."""

from __future__ import annotations

import argparse
import builtins
import io
import json
import os
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upx.assets.inspect.inventory import from_json
from upx.assets.inspect.safetensors import read_header
from upx.assets.inspect.torchfile import check_container
from upx_protocol.messages import Failed, Load, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from conftest import Bench
    from upx.config import Settings
    from upx.specs import BackendSpec

    Running = Callable[[BackendSpec, Path], AbstractContextManager[Bench]]
    Files = dict[str, Path]

ROOT = Path(__file__).resolve().parents[2]
INVENTORY: dict[str, object] = {"do": "inventory"}
# What real training code leaves, made by torch itself; `sys.argv[1]` is the folder.
MAKER = """
import argparse, collections, os, pathlib, sys
import numpy as np, torch
os.chdir(sys.argv[1])
wide = torch.arange(24, dtype=torch.float32).reshape(4, 6)
weights = {
    "f32": wide, "turned": wide.t(), "column": wide[:, 2], "tied": wide, "single": torch.tensor(7.5),
    "empty": torch.zeros(0, 3), "spread": torch.tensor([3.0]).expand(5), "bf16": wide.bfloat16(), "half": wide.half(),
    "double": wide.double(), "flags": wide > 5, "i64": wide.long(), "u8": wide.byte(), "i8": wide.char(),
    "i16": wide.short(), "i32": wide.int(), "u16": wide.to(torch.uint16), "f8": wide.to(torch.float8_e4m3fn),
    "parameter": torch.nn.Parameter(wide),
}
network = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(network.parameters())
network(torch.ones(1, 3)).sum().backward()
optimizer.step()
trainer = {
    "epoch": 3, "best": np.float64(31.5), "loss": np.float32(0.25),
    "args": argparse.Namespace(name="x", out=pathlib.Path("a/b")),
    "trainer": {"var_wo_ddp": collections.OrderedDict((f"module.{name}", each) for name, each in weights.items()),
                "optimizer": optimizer.state_dict()},
    "text": "t" * 1000, "nested": [{"deep": (torch.ones(2), torch.zeros(1))}], "none": None,
}
torch.save(trainer, "trainer.pth")
# The older form is older than these, and torch itself cannot read them from it.
for name in ("u16", "f8"):
    del trainer["trainer"]["var_wo_ddp"][f"module.{name}"]
torch.save(trainer, "old.pth", _use_new_zipfile_serialization=False)
torch.save(wide, "bare.pt")
torch.save([wide, wide.t()], "list.pt")
torch.save({"w": wide.to_sparse()}, "sparse.pt")
torch.save({"w": torch.view_as_complex(wide.reshape(12, 2))}, "complex.pt")
torch.save({"w": torch.quantize_per_tensor(wide, 0.1, 0, torch.quint8)}, "quantised.pt")
torch.save({"w": torch.zeros(1).expand(30_000_000)}, "swelling.pt")
torch.save({"w": torch.zeros(3), "__metadata__": torch.zeros(2)}, "metadata.pt")
torch.save({"module.w": torch.zeros(3), "w": torch.zeros(2)}, "clash.pt")
torch.save({"w": torch.zeros(1), "f": argparse.ArgumentParser}, "class.pt")
torch.save(network, "module.pt")
torch.jit.script(network).save("script.pt")
loop = [torch.zeros(1)]
loop.append(loop)
torch.save({"loop": loop}, "loop.pt")
lists = [torch.zeros(1)]
for _ in range(40):
    lists = [lists] * 40
torch.save(lists, "lists.pt")
torch.save({f"layer.{n}": torch.full((1024, 1024), float(n)) for n in range(50)}, "large.pt")
"""


class Run:
    """The converter in its environment's interpreter, one process for a list of jobs."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder

    def __call__(self, *jobs: tuple[Path, dict[str, object], str]) -> list[dict[str, Any]]:
        asked = [
            {"source": str(source), "order": order, "result": str(self.folder / name)} for source, order, name in jobs
        ]
        done = subprocess.run(
            [self.python, "-I", Path(__file__).with_name("convert_guarded.py"), ROOT / "backends", ROOT / "protocol"],
            input=json.dumps(asked).encode(),
            capture_output=True,
            check=False,
            cwd=self.folder,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def one(self, source: Path, order: dict[str, object], name: str = "result") -> dict[str, Any]:
        return self((source, order, name))[0]


@pytest.fixture(scope="module")
def python(backend_python: Callable[[str], Path]) -> Path:
    return backend_python("convert")


@pytest.fixture(scope="module")
def files(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("saved")
    made = subprocess.run(
        [python, "-I", "-W", "ignore", "-c", MAKER, folder], capture_output=True, check=False, timeout=120
    )
    assert made.returncode == 0, made.stderr.decode()
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Run:
    return Run(python, tmp_path)


def extract(group: str, *, strip: str = "", leave: tuple[str, ...] = ()) -> dict[str, object]:
    return {"do": "extract", "group": group, "strip": strip, "leave": list(leave)}


def values(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file, read by a hand of our own, as numpy has them; bf16 and f8 as their bits."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "I64": "<i8", "I32": "<i4",
             "I16": "<i2", "I8": "i1", "U8": "u1", "U16": "<u2", "F8_E4M3": "u1"}  # fmt: skip
    found = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            # In place: a tensor that does not start at a multiple of its elements would show.
            assert (start + begin) % np.dtype(kinds[entry["dtype"]]).itemsize == 0
            found[name] = np.frombuffer(content[start + begin : start + end], kinds[entry["dtype"]]).reshape(
                entry["shape"]
            )
    return found


# ---------------------------------------------------------------------------------------------- what is in it


def test_every_group_of_a_training_checkpoint_is_listed_in_both_forms(files: Files, run: Run, tmp_path: Path) -> None:
    assert (check_container(files["trainer.pth"]), check_container(files["old.pth"])) == ("zip", "pickle")
    new, old = run((files["trainer.pth"], INVENTORY, "new"), (files["old.pth"], INVENTORY, "old"))
    assert (new["error"], old["error"]) == ("", "")
    listed, listed_old = (json.loads((tmp_path / name).read_text()) for name in ("new", "old"))
    assert listed["other"] == listed_old["other"]
    lost = {name: listed["groups"]["trainer.var_wo_ddp"][name] for name in ("module.u16", "module.f8")}
    listed_old["groups"]["trainer.var_wo_ddp"].update(lost)
    assert listed["groups"] == listed_old["groups"]
    found = {group.path: group.tensors for group in from_json(listed).groups}
    assert found.keys() == {
        "trainer.var_wo_ddp", "trainer.optimizer.state.0", "trainer.optimizer.state.1", "nested.0.deep",
    }  # fmt: skip
    weights = found["trainer.var_wo_ddp"]
    assert weights["module.turned"].shape == (6, 4)
    assert {name.removeprefix("module."): tensor.dtype for name, tensor in weights.items()} == {
        "f32": "F32", "turned": "F32", "column": "F32", "tied": "F32", "single": "F32", "empty": "F32", "spread": "F32",
        "bf16": "BF16", "half": "F16", "double": "F64", "flags": "BOOL", "i64": "I64", "u8": "U8", "i8": "I8",
        "i16": "I16", "i32": "I32", "u16": "U16", "f8": "F8_E4M3", "parameter": "F32",
    }  # fmt: skip
    other = listed["other"]
    assert (other["epoch"], other["best"], other["loss"], other["none"]) == ("3", "31.5", "0.25", "None")
    assert (other["args.name"], other["args.out"], len(other["text"])) == ("x", "PurePosixPath", 200)


def test_a_bare_tensor_and_a_list_of_tensors_are_groups_too(files: Files, run: Run, tmp_path: Path) -> None:
    run((files["bare.pt"], INVENTORY, "bare"), (files["list.pt"], INVENTORY, "list"))
    assert json.loads((tmp_path / "bare").read_text())["groups"] == {"": {"tensor": {"dtype": "F32", "shape": [4, 6]}}}
    assert list(json.loads((tmp_path / "list").read_text())["groups"][""]) == ["0", "1"]


@pytest.mark.shared
def test_the_weights_of_a_real_network_are_listed_and_copied(shared: Path, run: Run, tmp_path: Path) -> None:
    real = shared / "data" / "hitsr" / "hit_srf_x4_ntire2025_team54.pth"
    assert check_container(real) == "zip"
    told = run((real, INVENTORY, "list"), (real, extract("params"), "copy"))
    assert [each["error"] for each in told] == ["", ""]
    (group,) = from_json(json.loads((tmp_path / "list").read_text())).groups
    assert (group.path, len(group.tensors)) == ("params", 882)
    assert read_header(tmp_path / "copy").groups[0].tensors == group.tensors


# ---------------------------------------------------------------------------------------------- copies


def test_a_group_is_copied_bit_by_bit_without_its_prefix(files: Files, run: Run, tmp_path: Path) -> None:
    order = extract("trainer.var_wo_ddp", strip="module.", leave=("u8", "i*"))
    told = run((files["trainer.pth"], order, "result"), (files["old.pth"], order, "old"))
    assert [each["error"] for each in told] == ["", ""]
    result = tmp_path / "result"
    assert read_header(result).metadata == {"format": "pt"}
    content = result.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    names = [each for each in json.loads(content[8 : 8 + length]) if each != "__metadata__"]
    assert names == sorted(names)
    found = values(result)
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "f32": wide, "turned": wide.T, "column": wide[:, 2], "tied": wide, "single": np.float32(7.5), "u16": wide,
        "empty": np.zeros((0, 3)), "spread": np.full(5, 3.0), "half": wide, "double": wide, "flags": wide > 5,
        "parameter": wide,
    }  # fmt: skip
    assert found.keys() == expected.keys() | {"bf16", "f8"}
    for each, value in expected.items():
        np.testing.assert_array_equal(found[each], value, err_msg=each)
    np.testing.assert_array_equal(found["bf16"], wide.view(np.uint32) >> 16)
    old = values(tmp_path / "old")
    assert found.keys() - old.keys() == {"u16", "f8"}
    for each, value in old.items():
        np.testing.assert_array_equal(value, found[each], err_msg=each)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_safetensors_file_is_copied_without_what_is_left_out(files: Files, run: Run, tmp_path: Path) -> None:
    run.one(files["trainer.pth"], extract("trainer.var_wo_ddp", strip="module."), "first.safetensors")
    told = run.one(tmp_path / "first.safetensors", extract("", leave=("flags", "i*")))
    assert told["error"] == ""
    before, after = values(tmp_path / "first.safetensors"), values(tmp_path / "result")
    assert before.keys() - after.keys() == {"flags", "i64", "i32", "i16", "i8"}
    for name, value in after.items():
        np.testing.assert_array_equal(value, before[name])


def test_progress_is_reported_and_memory_stays_that_of_a_tensor(files: Files, run: Run) -> None:
    told = run.one(files["large.pt"], extract(""))
    assert told["error"] == ""
    written = [done for stage, done, _ in told["progress"] if stage == "writing"]
    assert written == sorted(written)
    assert (len(written), written[-1]) == (51, 50 * 4 * 2**20)
    # The file holds 200 MiB.
    assert told["memory"] < 20 * 2**20


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("sparse.pt", extract(""), "w is sparse_coo F32"),
    ("complex.pt", extract(""), "w is complex64"),
    ("quantised.pt", extract(""), "w is quint8"),
    ("swelling.pt", extract(""), "many times"),
    ("metadata.pt", extract(""), "__metadata__"),
    ("clash.pt", extract("", strip="module."), "two tensors of '' are called 'w'"),
    ("clash.pt", extract("", leave=("*",)), "nothing of '' is left"),
    ("trainer.pth", extract("trainer"), "there is no group 'trainer': 'trainer.var_wo_ddp'"),
    ("trainer.pth", {"do": "dance"}, "inventory, extract"),
    ("trainer.pth", {"do": "extract", "group": 5}, "no text"),
    ("trainer.pth", {"do": "inventory", "more": 1}, "order cannot be read"),
    ("trainer.pth", {}, "order cannot be read"),
    ("class.pt", INVENTORY, "argparse.ArgumentParser"),
    ("module.pt", INVENTORY, "torch.nn.modules.linear.Linear"),
    ("script.pt", INVENTORY, "TorchScript"),
    ("lists.pt", INVENTORY, "more than"),
]


def test_what_cannot_be_done_is_refused_in_one_line(files: Files, run: Run, tmp_path: Path) -> None:
    told = run(*[(files[name], order, f"{number}") for number, (name, order, _) in enumerate(REFUSED)])
    for (name, order, says), each in zip(REFUSED, told, strict=True):
        assert each["kind"] == "input", (name, order, each)
        assert says in each["error"]
        assert "\n" not in each["error"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".order"}


def test_a_list_that_holds_itself_is_listed_once(files: Files, run: Run, tmp_path: Path) -> None:
    assert run.one(files["loop.pt"], INVENTORY)["error"] == ""
    assert list(json.loads((tmp_path / "result").read_text())["groups"]) == ["loop"]


def test_a_result_that_cannot_be_written_leaves_nothing(files: Files, run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    told = run.one(files["bare.pt"], extract(""), "taken")
    assert told["kind"] == "input"
    assert "cannot be written" in told["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "taken.order"]


def test_a_file_that_was_cut_or_is_none_is_refused_in_one_line(files: Files, run: Run, tmp_path: Path) -> None:
    sources = []
    for name in ("trainer.pth", "old.pth"):
        content = files[name].read_bytes()
        for number, length in enumerate((2, 5, 100, len(content) // 2, len(content) - 1)):
            sources.append(tmp_path / f"{number}-{name}")
            sources[-1].write_bytes(content[:length])
    for number, content in enumerate((b"", b"no weights" * 100, b"\x80\x02junk", b"PK\x03\x04junk", bytes(8) + b"{}")):
        sources.append(tmp_path / f"junk-{number}.pth")
        sources[-1].write_bytes(content)
    told = run(*[(source, INVENTORY, "result") for source in sources])
    for source, each in zip(sources, told, strict=True):
        assert each["kind"] == "input", (source.name, each)
        assert "\n" not in each["error"]


# ---------------------------------------------------------------------------------------------- hostile files


class Calls:
    """Pickles as a call of ``function``: what an attacker writes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Builds:
    """Pickles as an ``argparse.Namespace``, which is allowed, whose state is a call, which is not."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return argparse.Namespace, (), self.state


def hostile(marker: Path) -> Iterator[tuple[str, Any, str]]:
    """Name, object and the name that the refusal must hold; each would touch ``marker`` when unpickled."""
    touch = f"open({str(marker)!r}, 'w')"
    yield "system", Calls(os.system, f"touch {marker}"), "posix.system"
    yield "exec", Calls(exec, touch), "builtins.exec"
    yield "eval", Calls(eval, touch), "builtins.eval"
    yield "open", Calls(open, str(marker), "w"), "open"
    yield "popen", Calls(subprocess.Popen, ["touch", str(marker)]), "subprocess.Popen"
    yield "chain", Calls(getattr, Calls(__import__, "os"), "system"), "builtins.__import__"
    yield "build", Builds(Calls(exec, touch)), "builtins.exec"
    yield "loads", Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {marker}"))), "_pickle.loads"
    yield "memmap", Calls(np.memmap, str(marker), "u1", "w+", 0, (1,)), "numpy.memmap"
    yield "many", [Calls(os.system, "true"), Calls(builtins.exec, touch), Calls(os.remove, "x")], "posix.remove"


def dumped(thing: Any, protocol: int) -> bytes:
    return pickle.dumps({"w": thing}, protocol=protocol, fix_imports=False)


def as_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w/data.pkl", content)
        archive.writestr("w/version", "3\n")
        archive.writestr("w/byteorder", "little")
    return buffer.getvalue()


def as_pickles(content: bytes) -> bytes:
    """The older form, with the number and the version that torch looks for."""
    begins = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(each, protocol=2) for each in begins) + content + pickle.dumps([], protocol=2)


def test_a_hostile_pickle_runs_nothing_and_is_refused_by_the_names_it_asks_for(
    files: Files, run: Run, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    # First good ones: what torch and zipfile import late must not look like a deed.
    plain = tmp_path / "plain.pth"
    plain.write_bytes(as_zip(dumped("nothing", 2)))
    sources, names = [files["trainer.pth"], files["old.pth"], plain], ["", "", ""]
    for name, thing, refused in hostile(marker):
        for protocol in (0, 2, 4, 5):
            for form in (as_zip, as_pickles):
                if form is as_pickles and protocol == 0:
                    continue  # no pickle that torch, or the host, would take for one
                sources.append(tmp_path / f"{name}-{protocol}-{form.__name__}.pth")
                sources[-1].write_bytes(form(dumped(thing, protocol)))
                names.append(refused)
    told = run(*[(source, INVENTORY, "result") for source in sources])
    assert not marker.exists()
    assert [each["error"] for each in told[:3]] == ["", "", ""]
    for source, refused, each in list(zip(sources, names, told, strict=True))[3:]:
        assert each["kind"] == "input", (source.name, each)
        assert refused in each["error"], (source.name, each)
        assert "nothing was run" in each["error"]
        assert each["done"] == [], source.name
    # The hook does see: a good file makes the result be written.
    assert all(any(done.startswith(f"open {tmp_path}/.result") for done in each["done"]) for each in told[:3])


def test_all_names_that_a_hostile_pickle_asks_for_are_listed_and_those_of_python_2_too(
    run: Run, tmp_path: Path
) -> None:
    things = [Calls(os.system, "true"), Calls(os.remove, "x"), Calls(exec, "1")]
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    new.write_bytes(as_zip(dumped(things, 4)))
    old.write_bytes(as_zip(pickle.dumps(things, protocol=2, fix_imports=True)))
    told = run((new, INVENTORY, "result"), (old, INVENTORY, "result"))
    assert "asks for builtins.exec, posix.remove, posix.system:" in told[0]["error"]
    assert "asks for __builtin__.exec, posix.remove, posix.system:" in told[1]["error"]


def test_names_hidden_from_the_list_are_still_refused_by_torch(run: Run, tmp_path: Path) -> None:
    """The list is read from opcodes, and what lies behind a break of the format is not on it."""
    source = tmp_path / "hidden.pth"
    hidden = b"\x80\x02" + b"\xff" + dumped(Calls(os.system, f"touch {tmp_path / 'marker'}"), 2)[2:]
    source.write_bytes(as_zip(hidden))
    told = run.one(source, INVENTORY)
    assert told["kind"] == "input"
    assert not (tmp_path / "marker").exists()


def test_a_numpy_scalar_that_is_no_number_is_refused(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "scalar.pth"
    source.write_bytes(as_zip(dumped(np.zeros(1, "V8")[0], 2)))
    told = run.one(source, INVENTORY)
    assert told["kind"] == "input"


# ---------------------------------------------------------------------------------------------- as a worker


def test_the_worker_answers_a_load_refuses_a_tile_and_serves_on(
    python: Path, settings: Settings, running_backend: Running, files: Files, tmp_path: Path
) -> None:
    from upx.catalog import Catalog

    spec = Catalog(settings).backend("convert")
    assert spec.kind == "utility"
    order, bad = tmp_path / "order.json", tmp_path / "bad.pth"
    order.write_text(json.dumps(INVENTORY))
    bad.write_bytes(as_zip(dumped(Calls(os.system, f"touch {tmp_path / 'marker'}"), 4)))
    params = {"order": str(order), "result": str(tmp_path / "listed.json")}
    with running_backend(spec, python) as bench:
        bench.host.send(Load(1, "bad", spec.default_model, files={"source": str(bad)}, params=params))
        failed = bench.host.expect(Failed)
        assert failed.failure == "input"
        assert "posix.system" in failed.message
        loaded = bench.host.load(spec.default_model, key="good", files={"source": str(files["bare.pt"])}, **params)
        assert loaded.scale == 1
        assert any(isinstance(each.message, Progress) for each in bench.host.skipped)
        bench.host.submit([np.zeros((4, 4, 3), np.uint8)])
        assert bench.host.expect(Failed).failure == "input"
    assert json.loads((tmp_path / "listed.json").read_text())["groups"]
    assert not (tmp_path / "marker").exists()
