"""Import: names and shapes tell whose a file is; what is wrong with it is said, and nothing in it is run."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from fault_server import FaultServer, Literal, Route
from onnx_kit import model, part, tensor
from shelf_kit import MANUAL, add_backend, asset_text, url
from weights_kit import sha256

from upx.assets.inspect.safetensors import read_header
from upx.config import Settings
from upx.errors import UnusableWeightsError, UsageError, WeightsError
from upx.host import Host
from upx.models.checking import verify
from upx.models.importing import import_path
from upx.models.pulling import pull
from upx.models.selection import Selection, by_names

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.timeout(300)

# A network of the tests' own: three tensors, one of which follows the scale.
LAYOUT = {
    "schema": 1,
    "about": "for tests",
    "wrappers": ["params", "params_ema", "trainer.net"],
    "sizes_vary": True,
    "ignored": ["mask*"],
    "tensors": {"body.{0..1}.weight": [4, 3], "tail.weight": ["3*s*s", 4]},
}
SHAPES = {"body.0.weight": (4, 3), "body.1.weight": (4, 3), "tail.weight": (12, 4)}
# Makes pickles with the torch of the converter's environment; `sys.argv`: the target, then a JSON list of what to save.
MAKER = """
import json, sys, torch
for target, kind, shapes in json.loads(sys.argv[1]):
    state = {k: torch.arange(float(torch.Size(v).numel())).reshape(v) for k, v in shapes.items()}
    saved = {
        "bare": lambda: state,
        "params": lambda: {"params": state},
        "params_ema": lambda: {"params_ema": state, "params": {k: v * 0 for k, v in state.items()}},
        "module": lambda: {f"module.{k}": v for k, v in state.items()},
        "trainer": lambda: {
            "epoch": 3,
            "trainer": {"net": state, "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}},
        },
        "tensor": lambda: state["tensor"],
        "two": lambda: {
            "params": {k: v for k, v in state.items() if "second" not in k},
            "second": {k: v for k, v in state.items() if "second" in k},
        },
    }[kind]()
    torch.save(saved, target)
"""


@pytest.fixture(scope="module")
def converter(backend_python):
    return backend_python("convert")


@pytest.fixture
def host(tmp_path, settings, converter):
    """A home of its own whose environments are those of all tests."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    for name in ("venvs", "stage"):
        (settings.data_dir / name).mkdir(parents=True, exist_ok=True)
        (home / "data" / name).symlink_to(settings.data_dir / name, target_is_directory=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPX_") or "WHEEL" in name}
    folder = add_backend(home, asset_text(None, MANUAL, file="net.safetensors", more="", digest=DIGEST))
    (folder / "layouts").mkdir()
    (folder / "layouts" / "net.json").write_text(json.dumps(LAYOUT))
    with Host(Settings.from_env({**kept, "UPX_HOME": str(home)})) as made:
        yield made


DIGEST = 'unverified = "none was published"\nlayout = "layouts/net.json"'


def save(converter, *wanted):
    """Save each (path, kind, shapes) with torch."""
    asked = json.dumps([(str(path), kind, shapes) for path, kind, shapes in wanted])
    subprocess.run([converter, "-I", "-c", MAKER, asked], check=True, timeout=120)


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]], *, prefix: str = "") -> Path:
    """A safetensors file with counted-up floats."""
    header, data = {}, b""
    for name, shape in shapes.items():
        content = struct.pack(f"<{math.prod(shape)}f", *range(math.prod(shape)))
        header[prefix + name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    (group,) = read_header(path).groups
    return {name: tensor.shape for name, tensor in group.tensors.items()}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("bare", ""),
        ("params", "out of 'params'"),
        ("params_ema", "out of 'params"),
        ("module", "without the prefix 'module.'"),
        ("trainer", "out of 'trainer.net'"),
    ],
)
def test_a_pickle_is_unwrapped_converted_and_told(host, converter, tmp_path, kind, said):
    save(converter, (tmp_path / "net.pth", kind, {**SHAPES, "mask_7": (2, 2)}))
    (done,) = import_path(host.shelf, tmp_path / "net.pth")
    assert (done.model, done.role, done.path.suffix) == ("mine-x2", "weights", ".safetensors")
    assert shapes_of(done.path) == SHAPES
    notes = "; ".join(done.notes)
    assert said in notes
    assert "without mask_7" in notes
    kept = host.shelf.store.find("mine-x2", "weights")
    assert (kept.receipt.verified, kept.receipt.source["file"]) == ("import", "net.pth")
    assert len(kept.receipt.original) == 64


def test_safetensors_need_no_worker(host, tmp_path, monkeypatch):
    monkeypatch.setattr("upx.host.Host._session", lambda *_args, **_more: pytest.fail("a worker was started"))
    (done,) = import_path(host.shelf, safetensors(tmp_path / "net.safetensors", SHAPES))
    assert done.path.read_bytes() == (tmp_path / "net.safetensors").read_bytes()


def test_a_prefix_and_what_is_not_kept_are_taken_off_safetensors_too(host, tmp_path):
    shapes = {"body.0.weight": (4, 3), "mask_1": (7, 2), "body.1.weight": (4, 3), "tail.weight": (12, 4)}
    source = safetensors(tmp_path / "net.safetensors", shapes, prefix="module.")
    (done,) = import_path(host.shelf, source)
    assert shapes_of(done.path) == SHAPES
    content = done.path.read_bytes()
    assert content.endswith(struct.pack("<48f", *range(48)))
    assert "without the prefix 'module.'" in "; ".join(done.notes)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"body.0.weight": (4, 3), "tail.weight": (12, 4)},
            r"1 of 3 tensors are missing, the first is body\.1\.weight",
        ),
        ({**SHAPES, "body.1.weight": (4, 5)}, r"body\.1\.weight is 4 x 5, and should be 4 x 3"),
        ({**SHAPES, "extra.weight": (1,)}, r"1 of its tensors are unexpected, the first is extra\.weight"),
        ({**SHAPES, "tail.weight": (27, 4)}, r"tail\.weight is 27 x 4, and should be 12 x 4"),
        ({"quite.another": (1,)}, "is not mine-x2:weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_wrong_file_is_told_by_the_first_thing_that_is_wrong(host, converter, tmp_path, shapes, message, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        save(converter, (path, "params", shapes))
    else:
        safetensors(path, shapes)
    with pytest.raises(UnusableWeightsError, match=message) as caught:
        import_path(host.shelf, path, name="mine-x2")
    assert caught.value.exit_code == 5
    assert host.shelf.store.blobs() == {}
    assert not list(host.shelf.store.parts.glob("*")) or not any(host.shelf.store.parts.iterdir())


def onnx(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """An ONNX file whose initializers are these."""
    weights = [part(5, tensor(name, list(shape), raw=bytes(4 * math.prod(shape)))) for name, shape in shapes.items()]
    path.write_bytes(model(b"".join(weights)))
    return path


def test_an_onnx_file_is_known_by_its_initializers_and_kept_as_it_is(host, tmp_path):
    with pytest.raises(UnusableWeightsError, match="mine-x2 takes no onnx file"):
        import_path(host.shelf, onnx(tmp_path / "net.onnx", SHAPES), name="mine-x2")
    folder = host.settings.backends_dir / "mine"
    (folder / "backend.toml").write_text((folder / "backend.toml").read_text().replace("net.safetensors", "net.onnx"))
    host = Host(host.settings)
    with pytest.raises(UnusableWeightsError, match="1 of 3 tensors are missing"):
        import_path(host.shelf, onnx(tmp_path / "net.onnx", dict(list(SHAPES.items())[:2])), name="mine-x2")
    (done,) = import_path(host.shelf, onnx(tmp_path / "net.onnx", SHAPES))
    assert (done.model, done.role) == ("mine-x2", "weights")
    assert done.path.read_bytes() == (tmp_path / "net.onnx").read_bytes()


def test_another_model_s_file_is_called_by_its_name(host, tmp_path):
    path = safetensors(tmp_path / "net.safetensors", SHAPES)
    with pytest.raises(UnusableWeightsError, match="is not hitsr-srf-x4:weights") as caught:
        import_path(host.shelf, path, name="hitsr-srf-x4")
    assert caught.value.hint


@pytest.mark.shared
def test_a_trained_checkpoint_could_be_two_models_and_is_the_one_that_is_named(host, shared):
    path = shared / "data" / "hitsr" / "hit_srf_x4_ntire2025_team54.pth"
    with pytest.raises(UsageError, match="could be 2 models'") as caught:
        import_path(host.shelf, path)
    assert "--as hitsr-srf-x4:weights or --as hitsr-srf-x4-df2k:weights" in caught.value.hint
    (done,) = import_path(host.shelf, path, name="hitsr-srf-x4")
    assert len(shapes_of(done.path)) == 882
    with pytest.raises(UnusableWeightsError, match="is not hitsr-srf-x2:weights; it is hitsr-srf-x4:weights"):
        import_path(host.shelf, path, name="hitsr-srf-x2")
    with pytest.raises(UnusableWeightsError, match="is not hitsr-sir-x4:weights"):
        import_path(host.shelf, path, name="hitsr-sir-x4")


@pytest.mark.shared
@pytest.mark.parametrize("family", ["sir", "sng", "srf"])
def test_a_config_beside_weights_changes_their_sizes_and_comes_along(host, shared, tmp_path, family):
    tiny = shared / "golden" / "hitsr" / f"hit_{family}_tiny_x2.safetensors"
    name = f"hitsr-{family}-x2"
    with pytest.raises(UnusableWeightsError, match=r"config\.json|missing") as caught:
        import_path(host.shelf, tiny, name=name)
    assert "config.json beside it" in caught.value.hint
    (tmp_path / "model.safetensors").write_bytes(tiny.read_bytes())
    (tmp_path / "config.json").write_bytes(tiny.with_suffix(".json").read_bytes())
    weights, config = import_path(host.shelf, tmp_path / "model.safetensors", name=name)
    assert (weights.role, config.role) == ("weights", "config")
    assert config.path.parent == weights.path.parent
    assert json.loads(config.path.read_text())["upscale"] == 2


@pytest.mark.shared
def test_a_folder_in_the_layout_of_diffusers_is_taken_by_its_paths(host, shared):
    done = import_path(host.shelf, shared / "golden" / "tsdsr" / "sd3_tiny")
    assert {(each.model, each.role) for each in done} == {
        (model, f"base-{part}{suffix}")
        for model in ("tsdsr", "tsdsr-mse")
        for part in ("transformer", "vae")
        for suffix in ("", "-config")
    }
    assert len(host.shelf.store.blobs()) == 4


@pytest.mark.shared
def test_the_embeddings_of_a_prompt_are_bare_tensors_and_known_by_their_shape(host, shared, converter, tmp_path):
    save(
        converter,
        (tmp_path / "prompt_embeds.pt", "tensor", {"tensor": (1, 333, 4096)}),
        (tmp_path / "pool_embeds.pt", "tensor", {"tensor": (1, 2048)}),
    )
    done = import_path(host.shelf, tmp_path)
    assert {(each.model, each.role) for each in done} == {
        (model, role) for model in ("tsdsr", "tsdsr-mse") for role in ("prompt-embeds", "pool-embeds")
    }


class Harm:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["legacy", "zip"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_pickle_that_would_run_a_command_runs_nothing_and_is_refused_by_name(host, tmp_path, form, suffix):
    marker, path = tmp_path / "marker", tmp_path / f"evil{suffix}"
    content = pickle.dumps({"params": Harm(marker)}, protocol=2)
    if form == "legacy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", content)
            archive.writestr("evil/version", "3\n")
    with pytest.raises(UnusableWeightsError, match=r"system") as caught:
        import_path(host.shelf, path, name="mine-x2")
    assert path.name in str(caught.value)
    assert not marker.exists()
    assert host.shelf.store.blobs() == {}


def test_a_pickle_under_another_name_is_not_opened_as_what_it_says(host, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(pickle.dumps({"params": Harm(tmp_path / "marker")}))
    with pytest.raises(UnusableWeightsError, match=r"net\.safetensors"):
        import_path(host.shelf, path)
    assert not (tmp_path / "marker").exists()


def test_a_header_of_ten_gigabytes_is_refused_without_being_read(host, tmp_path):
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 10 << 30))
        file.truncate(11 << 30)
    with pytest.raises(UnusableWeightsError, match="header"):
        import_path(host.shelf, path, name="mine-x2")


def test_a_bomb_and_a_member_that_leads_elsewhere_are_refused_before_a_worker_starts(host, tmp_path, monkeypatch):
    monkeypatch.setattr("upx.host.Host._session", lambda *_args, **_more: pytest.fail("a worker was started"))
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("x/data/0", bytes(200 << 20))
    leads = tmp_path / "leads.pth"
    with zipfile.ZipFile(leads, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        archive.writestr("../../x", b"out")
    for path, message in ((bomb, "x/data/0|compressed|bomb"), (leads, r"\.\./\.\./x")):
        with pytest.raises(UnusableWeightsError, match=message):
            import_path(host.shelf, path, name="mine-x2")


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", bytes(100), b"{}", b"<html>no such page</html>"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
def test_what_is_no_weights_at_all_is_said_in_one_line(host, tmp_path, content, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnusableWeightsError) as caught:
        import_path(host.shelf, path, name="mine-x2")
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_folder_without_weights_and_a_path_that_is_nothing_are_said(host, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnusableWeightsError, match="holds no weights"):
        import_path(host.shelf, tmp_path / "empty")
    with pytest.raises(UnusableWeightsError, match="is no file"):
        import_path(host.shelf, tmp_path / "nowhere.pth")


@pytest.mark.parametrize(("name", "message"), [("mine-x2:other", "no role 'other'"), ("nowhere", "nowhere")])
def test_a_name_that_means_nothing_is_a_wrong_request(host, tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        import_path(host.shelf, safetensors(tmp_path / "net.safetensors", SHAPES), name=name)


@pytest.mark.parametrize("content", [b"[1", b"[]", b"\xff", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused_before_anything_is_written(host, tmp_path, content):
    path = safetensors(tmp_path / "net.safetensors", SHAPES)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UnusableWeightsError, match=r"config\.json is no JSON object"):
        import_path(host.shelf, path)
    assert host.shelf.store.models() == []


def test_a_config_as_large_as_a_disk_is_refused_without_being_read(host, tmp_path):
    path = safetensors(tmp_path / "net.safetensors", SHAPES)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnusableWeightsError, match=r"config\.json is no JSON object"):
        import_path(host.shelf, path)


def test_other_weights_take_the_old_configuration_away(host, tmp_path):
    path = safetensors(tmp_path / "net.safetensors", SHAPES)
    config = tmp_path / "config.json"
    config.write_text("{}")
    assert [each.role for each in import_path(host.shelf, path)] == ["weights", "config"]
    (checked,) = [each for each in verify(host.shelf, by_names(host.shelf, ["mine"])) if each.file == "config.json"]
    assert checked.status == "ok"
    config.unlink()
    assert [each.role for each in import_path(host.shelf, path)] == ["weights"]
    assert host.shelf.store.find("mine-x2", "config") is None


def test_two_files_of_one_role_in_a_folder_are_refused_and_nothing_is_written(host, tmp_path):
    for name in ("a", "b"):
        safetensors(tmp_path / f"{name}.safetensors", SHAPES)
    with pytest.raises(UsageError, match=r"a\.safetensors and b\.safetensors are both mine-x2:weights"):
        import_path(host.shelf, tmp_path)
    assert host.shelf.store.models() == []


def test_one_bad_file_in_a_folder_leaves_nothing_of_the_others(host, tmp_path):
    safetensors(tmp_path / "good.safetensors", SHAPES)
    (tmp_path / "zz.safetensors").write_bytes(b"none")
    with pytest.raises(UnusableWeightsError, match=r"zz\.safetensors"):
        import_path(host.shelf, tmp_path)
    assert host.shelf.store.models() == []


def test_what_is_no_file_in_a_folder_is_passed_over(host, tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.bin").mkdir()
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    safetensors(tmp_path / "Net.SafeTensors", SHAPES)
    (done,) = import_path(host.shelf, tmp_path)
    assert done.source.name == "Net.SafeTensors"


def test_a_path_that_no_system_has_is_said_in_one_line(host):
    for path in (Path("x" * 5000), Path("/proc/self/mem")):
        with pytest.raises(UnusableWeightsError, match=r"cannot be read|is no"):
            import_path(host.shelf, path, name="mine-x2")


def test_a_model_in_use_keeps_its_files(host, tmp_path):
    import_path(host.shelf, safetensors(tmp_path / "net.safetensors", SHAPES))
    with host.shelf.store.use("mine-x2"), pytest.raises(WeightsError, match="is in use") as caught:
        import_path(host.shelf, tmp_path / "net.safetensors")
    assert "upx stop" in caught.value.hint


def test_a_pickle_that_is_called_bin_is_opened_as_what_it_is(host, converter, tmp_path):
    save(converter, (tmp_path / "pytorch_model.bin", "bare", SHAPES))
    (done,) = import_path(host.shelf, tmp_path / "pytorch_model.bin")
    assert shapes_of(done.path) == SHAPES


def test_two_roles_out_of_one_pickle_are_two_groups(host, converter, tmp_path):
    path = tmp_path / "both.pth"
    save(converter, (path, "two", {**SHAPES, "second.weight": (7, 2)}))
    digest = f'sha256 = "{sha256(path.read_bytes())}"\nlayout = "layouts/'
    with FaultServer() as server:
        server.add("/both", Route(Literal(path.read_bytes())))
        assets = (
            asset_text(None, url(server.url("/both")), role=role, file=f"{role}.pth", digest=f'{digest}{role}.json"')
            for role in ("net", "second")
        )
        folder = add_backend(Path(host.settings.data_dir).parent, *assets, name="two")
        (folder / "layouts").mkdir()
        (folder / "layouts" / "net.json").write_text(json.dumps(LAYOUT))
        second = {"schema": 1, "about": "", "wrappers": ["second"], "tensors": {"second.weight": [7, 2]}}
        (folder / "layouts" / "second.json").write_text(json.dumps(second))
        with Host(host.settings) as other:
            (done,) = pull(other.shelf, Selection(tuple(by_names(other.shelf, ["two"]))), offline=False)
            assert done.error is None
            kept = {each.role: shapes_of(other.shelf.store.find("two-x2", each.role).path)
                    for each in other.shelf.store.receipts("two-x2")}  # fmt: skip
    assert kept == {"net": SHAPES, "second": {"second.weight": (7, 2)}}
