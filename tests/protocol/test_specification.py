"""The specification names every kind, every key with its default, every limit, reason and class."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from upx_protocol import codec, errors, fields, files, options, receiving, version, work
from upx_protocol.entry import Entry
from upx_protocol.messages import KINDS, Buffer, Wanted
from upx_protocol.options import WorkerOptions
from upx_protocol.pulse import Status
from upx_protocol.sessions import MAX_SESSIONS

SPEC = (Path(__file__).resolve().parents[2] / "protocol" / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def section(kind: str) -> str:
    start = SPEC.index(f"### `{kind}`\n")
    end = SPEC.find("\n### ", start)
    return SPEC[start : end if end > 0 else len(SPEC)]


def default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{json.dumps(field.default)}`"
    return "required" if field.default_factory is dataclasses.MISSING else "`{}`"


@pytest.mark.parametrize("cls", [*KINDS.values(), Buffer, Wanted], ids=lambda cls: cls.__name__)
def test_every_key_stands_with_its_default_and_its_meaning(cls: Any) -> None:
    parts = {Buffer: ("## Parts", "## Handshake"), Wanted: ("## Sending files", "## Liveness")}
    text = SPEC[slice(*map(SPEC.index, parts[cls]))] if cls in parts else section(cls.__name__)
    said = {match[1]: match[3].strip() for match in ROW.finditer(text)}
    real = {field.metadata["key"] or field.name: default(field) for field in dataclasses.fields(cls)}
    assert said == real


def test_no_kind_stands_that_does_not_exist() -> None:
    assert re.findall(r"^### `(\w+)`$", SPEC, re.MULTILINE) == list(KINDS)


def test_figures_are_those_of_the_code() -> None:
    assert f"version {version.NEWEST}" in SPEC.splitlines()[0]
    limits = {codec.MAX_HEADER, fields.MAX_TEXT, fields.MAX_ITEMS, codec.MAX_PARTS, codec.MAX_SESSION, MAX_SESSIONS}
    for figure in limits:
        assert f"{figure:,}" in SPEC
    assert f"after {options.SILENCE_S:.0f} s" in SPEC
    assert f"A chunk has {files.CHUNK:,} bytes" in SPEC
    assert f"on their way, {files.WINDOW:,}." in SPEC
    assert f"has more than {work.LONGEST_DIGEST} characters" in SPEC
    assert f"after {receiving.STALL_S:.0f} seconds in which no chunk came" in SPEC
    assert (receiving.MAX_FILES, receiving.MAX_FILES_OF_CLIENT) == (4, 2), "four files …, two of one key"


def test_every_class_of_failure_and_every_key_of_the_entry_stands(tmp_path: Path) -> None:
    classes = {cls.failure for cls in _below(errors.UpscalerError)}
    assert classes == {"oom", "input", "transient", "fatal"}
    for name in classes:
        assert f"`{name}` (" in SPEC
    entry = SPEC[SPEC.index("## Registry entry") : SPEC.index("## Compatibility")]
    path = tmp_path / "entry.json"
    written = Entry(WorkerOptions("toy", "toy", "", entry=str(path)), endpoint="ipc:///x")
    written.write(Status())
    written.close()
    # What a host writes before the worker does.
    for key in (*json.loads(path.read_text()), "planned"):
        assert f"`{key}`" in entry


def _below(cls: Any) -> list[Any]:
    return [cls, *(deep for sub in cls.__subclasses__() for deep in _below(sub))]
