"""Where a job's rows go: a file that appears whole, a stream, or memory in the form that the source had."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeAlias

from upx.errors import OutputError
from upx.media.encoders import Encoder, check_output_size, format_facts, open_encoder
from upx.media.memory import ArrayEncoder, like_input, to_image
from upx.media.output_file import OutputFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from upx.jobs import OnExists
    from upx.media.channels import Mode
    from upx.media.picture import Picture

Target: TypeAlias = "Path | BinaryIO | None"
Form: TypeAlias = Literal["array", "pillow"]


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What is to be written: size in pixels, channels, and the file's format, quality and clobbering."""

    width: int
    height: int
    mode: Mode
    format: str | None = None
    quality: int | None = None
    on_exists: OnExists = "overwrite"
    icc: bytes | None = None
    exif: bytes | None = None


class OpenTarget(Protocol):
    """Takes rows from top to bottom."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the format could not hold."""
        ...

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, (n, width, channels)."""
        ...

    def close(self) -> object:
        """Complete it; gives what the caller gets back."""
        ...

    def abort(self) -> None:
        """Give up; nothing is left."""
        ...


def check_target(target: Target, spec: TargetSpec) -> None:
    """Refuse, before the work, what the format cannot hold (PictureTooLargeError, UnsupportedPictureError)."""
    if target is not None:
        check_output_size(_format(target, spec), spec.width, spec.height)


def open_target(target: Target, spec: TargetSpec, picture: Picture, *, form: Form) -> OpenTarget:
    """Open ``target``; None collects rows in memory and gives an array or a Pillow picture like the source."""
    if target is None:
        return _Memory(spec, picture, form)
    if isinstance(target, Path):
        output = OutputFile(target).open()
        try:
            return _File(_encoder(output, target, spec), output, on_exists=spec.on_exists)
        except BaseException:
            output.abort()
            raise
    return _Stream(target, spec)


def _encoder(file: Any, target: Target, spec: TargetSpec) -> Encoder:
    return open_encoder(
        file,
        _format(target, spec),
        width=spec.width,
        height=spec.height,
        mode=spec.mode,
        quality=spec.quality,
        icc=spec.icc,
        exif=spec.exif,
    )


def _format(target: Target, spec: TargetSpec) -> str:
    """The format asked for, else the one of the file's name, else PNG; UnsupportedPictureError for another name."""
    if spec.format:
        return spec.format
    if isinstance(target, Path) and target.suffix:
        return format_facts(target.suffix).name
    return "png"


class _File:
    """A file that appears under its name by ``close`` and never otherwise."""

    def __init__(self, encoder: Encoder, output: OutputFile, *, on_exists: OnExists) -> None:
        self._encoder = encoder
        self._output = output
        self._on_exists: OnExists = on_exists
        self.warnings = encoder.warnings

    def write(self, rows: NDArray[Any]) -> None:
        self._encoder.write(rows)

    def close(self) -> Path:
        self._encoder.close()
        return self._output.commit(on_exists=self._on_exists)

    def abort(self) -> None:
        self._encoder.abort()
        self._output.abort()


class _Stream:
    """A binary stream that gets the file only when it is whole: half a picture in a pipe helps nobody."""

    def __init__(self, stream: BinaryIO, spec: TargetSpec) -> None:
        self._stream = stream
        self._held = io.BytesIO()
        self._encoder = _encoder(self._held, stream, spec)
        self.warnings = self._encoder.warnings

    def write(self, rows: NDArray[Any]) -> None:
        self._encoder.write(rows)

    def close(self) -> None:
        self._encoder.close()
        try:
            self._stream.write(self._held.getbuffer())
            self._stream.flush()
        except OSError as error:
            said = error.strerror or str(error)
            raise OutputError(f"the stream cannot be written: {said}", hint="write to a file") from error

    def abort(self) -> None:
        self._encoder.abort()


@dataclass
class _Memory:
    """The rows in memory: an array of the source's dtype and number of dimensions, or a Pillow picture."""

    spec: TargetSpec
    picture: Picture
    form: Form
    warnings: tuple[str, ...] = ()
    _rows: ArrayEncoder = field(init=False)

    def __post_init__(self) -> None:
        self._rows = ArrayEncoder(
            width=self.spec.width, height=self.spec.height, mode=self.spec.mode, dtype=self.picture.dtype
        )

    def write(self, rows: NDArray[Any]) -> None:
        self._rows.write(rows)

    def close(self) -> Any:
        self._rows.close()
        if self.form == "array":
            return like_input(self._rows.array, self.picture.shape)
        return to_image(self._rows.array, icc=self.spec.icc, exif=self.spec.exif)

    def abort(self) -> None:
        self._rows.abort()
