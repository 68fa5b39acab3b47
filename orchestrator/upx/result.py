"""What a job gives back: the record of what was done, frozen, and its JSON form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.errors import UpxError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """Why an input failed: ``code`` for machines, ``message`` and ``hint`` for people."""

    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: UpxError) -> ErrorRecord:
        """The record of an error that upx raised."""
        return cls(error.code, str(error), error.hint)


@dataclass(frozen=True, slots=True)
class Record:
    """One input's outcome; the JSON record of ``upx up --json``.

    Sizes are (width, height) in pixels; ``seconds`` is wall time; ``peak_mem`` is the host's peak resident set
    in bytes; ``stages`` are seconds per stage (decode, tile, transport, inference, stitch, encode).
    """

    input: str
    output: str | None
    status: Literal["done", "skipped", "failed"]
    in_size: tuple[int, int] | None = None
    out_size: tuple[int, int] | None = None
    backend: str | None = None
    model: str | None = None
    model_sha256: str | None = None
    scale: int | None = None
    device: str | None = None
    precision: str | None = None
    licence: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seed: int | None = None
    tile: tuple[int, int] | None = None
    tiles: int = 0
    seconds: float = 0.0
    peak_mem: int = 0
    stages: Mapping[str, float] = field(default_factory=dict[str, float])
    warnings: tuple[str, ...] = ()
    error: ErrorRecord | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping with ``schema`` first."""
        return {"schema": SCHEMA, "kind": "picture", **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far one picture is; ``tiles`` is 0 until its plan is known."""

    stage: Literal["decode", "start", "inference", "encode", "done"]
    tiles_done: int = 0
    tiles: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """A job's output and its record.

    ``output`` is what the input was: a ``Path`` for a path, a PIL picture for one, an ndarray for one; None when
    the job failed, and then ``error`` is the exception.
    """

    output: Path | Any | None
    record: Record
    error: UpxError | None = None
