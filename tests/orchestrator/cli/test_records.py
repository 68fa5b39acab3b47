"""The keys of every kind of record: scripts of users depend on them."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import upx.cli._workers_lines
import upx.cli.models._lines  # noqa: F401  # both teach the renderer
from upx.cli import _results, _workers
from upx.cli._render import size_text, time_text, to_lines, to_record
from upx.cli.models import _results as model_results
from upx.result import Record

WORKER = (
    "id backend model device state hosts tied keep_alive idle age memory pid place device_name queue tiles megapixels "
    "busy_seconds rate message"
)
KEYS = {
    "version": "version protocol python",
    "error": "code message hint exit_code",
    "summary": "done skipped failed seconds exit_code",
    "backend": "name title default_model scales models devices env purpose",
    "backend_problem": "message hint",
    "backend_info": "name title description homepage folder aliases default_model models parameters devices precisions "
    "tile overlap stitch env purpose",
    "env": "backend folder flavour fingerprint seconds mended versions",
    "env_entry": "name folder state in_use superseded size flavour fingerprint",
    "pruned": "removed kept_in_use freed",
    "worker": WORKER,
    "top_worker": f"{WORKER} megapixels_per_second tiles_per_second busy",
    "top": "time queue megapixels_per_second tiles_per_second busy workers",
    "stopped": "id backend pid outcome",
    "warm": "backend model device precision keep_alive seconds",
    "check": "name status message hint",
    "model": "name backend scale trained licence restricted size installed damaged places runs title",
    "model_info": "name backend aliases title scale trained bundles runs licences accepted pinned files",
    "pulled": "model status files size seconds code message hint",
    "verified": "name file status message hint",
    "imported": "source model role path sha256 size notes",
    "usage": "model size own last_used pinned in_use",
    "store": "folder size parts cap",
    "removed": "models kept freed",
    "pin": "model pinned",
    "key": "which key",
    "allowed_key": "name key state",
    "box": "name endpoint backend key state",
    "box_test": "name endpoint backend device device_name protocol latency_ms mbit_per_second memory memory_free hosts "
    "queued models",
    "bench": "backend model workers tile width height seconds tiles_per_second megapixels_per_second stages",
}
PICTURE = (
    "input output status in_size out_size backend model model_sha256 scale device precision licence params seed tile "
    "tiles seconds peak_mem stages warnings error"
)
SAMPLES = {
    "str": "x", "int": 1, "float": 0.5, "bool": True, "Path": Path("/x"), "Path | None": Path("/x"),
    "float | None": 1.5, "str | None": "x", "float | str": 0.5, "Mapping[str, str]": {"a": "1"},
    "Mapping[str, float]": {"decode": 0.5}, "tuple[int, ...]": (4,), "tuple[str, ...]": ("x",),
    "tuple[Path, ...]": (Path("/x"),), "tuple[float | str, ...]": (0.5,),
    "tuple[ModelInfo, ...]": (_results.ModelInfo("m", 4, "t", "k", "l", "u", restricted=True),),
    "int | None": 5,
    "tuple[TopRow, ...]": (
        _workers.TopRow(
            "a", "b", "m", "cpu", "idle", 0, False, None, 0.0, 1.0, 1, 1, "local", "", 0, 1, 0.5, 0.5, 0.5, "",
            megapixels_per_second=0.5, tiles_per_second=None, busy=1.0,
        ),
    ),
    "tuple[LicenceInfo, ...]": (model_results.LicenceInfo("l", "u", True, False, True, "n"),),
    "tuple[ModelFile, ...]": (
        model_results.ModelFile("r", "f", 5, True, "0" * 64, "", "l", ("url: u",), "store", False, Path("/x"), "w", ""),
        model_results.ModelFile("r", "f", 0, False, "", "why", "l", ("url: u",), "", False, None, "w", "h"),
    ),
    "tuple[ParameterInfo, ...]": (_results.ParameterInfo("p", "int", 1, 0, None, (), "h"),),
}  # fmt: skip


def kinds() -> list[type]:
    found = (
        each for module in (_results, _workers, model_results) for each in inspect.getmembers(module, inspect.isclass)
    )
    return [kind for _, kind in found if hasattr(kind, "KIND")]


def sample(kind: type):
    return kind(**{field.name: SAMPLES[str(field.type)] for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.KIND)
def test_the_keys_of_a_record_stay(kind) -> None:
    record = to_record(sample(kind))
    assert list(record) == ["schema", "kind", *KEYS[kind.KIND].split()]
    assert (record["schema"], record["kind"]) == (1, kind.KIND)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_every_kind_is_pinned() -> None:
    assert {kind.KIND for kind in kinds()} == set(KEYS)


def test_the_keys_of_a_picture_stay() -> None:
    assert list(to_record(Record("a", "b", "done"))) == ["schema", "kind", *PICTURE.split()]


@pytest.mark.parametrize(
    "kind", [each for each in kinds() if each.KIND not in {"error", "summary"}], ids=lambda k: k.KIND
)
def test_every_result_has_words_for_people(kind) -> None:
    lines = to_lines([sample(kind)])
    assert lines
    assert all("\n" not in line for line in lines)


def test_a_table_is_aligned() -> None:
    rows = [
        _results.EnvRow(name, Path(name), "complete", False, False, size, "cpu", "f")
        for name, size in (("a", 5), ("longer", 3 << 20))
    ]
    head, first, second = to_lines(rows)
    assert head.index("SIZE") == first.index("5 B") == second.index("3 MiB")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (110 << 20, "110 MiB"),
        (1010 << 20, "1010 MiB"),
        (5 << 30, "5 GiB"),
    ],
)
def test_sizes_are_readable(size, text) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (35.2, "35 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (200000, "2.3 d"), (None, "for ever")],
)
def test_times_are_readable(seconds, text) -> None:
    assert time_text(seconds) == text
