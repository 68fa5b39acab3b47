"""Choose the encoder for a format: what each takes, how large it may be, and one way to write to all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from upx.errors import ParameterError, PictureTooLargeError, UnsupportedPictureError
from upx.media.channels import flattened
from upx.media.jpeg import JpegEncoder
from upx.media.output_file import OutputFile
from upx.media.png import PngEncoder
from upx.media.webp import WebpEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from upx.media.channels import Mode
    from upx.media.output_file import Sink


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What a format can hold. ``longest``: pixels a side; ``quality``: the default, None where it is lossless."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    longest: int
    alpha: bool
    streams: bool
    quality: int | None


FORMATS = {
    "png": FormatFacts("png", "PNG", (".png",), 2**31 - 1, alpha=True, streams=True, quality=None),
    # 65500 is libjpeg's limit, the standard's is 65535.
    "jpeg": FormatFacts("jpeg", "JPEG", (".jpg", ".jpeg"), 65500, alpha=False, streams=True, quality=95),
    "webp": FormatFacts("webp", "WebP", (".webp",), 16383, alpha=True, streams=False, quality=90),
}


class Encoder(Protocol):
    """Rows of a picture, top to bottom, to a file in its format. ``streams``: rows are not kept."""

    @property
    def streams(self) -> bool:
        """Whether rows leave while they come."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the format could not hold."""
        ...

    def write(self, rows: NDArray[Any]) -> None:
        """The next rows, (n, width, channels) uint8; they may be reused afterwards."""
        ...

    def close(self) -> None:
        """Complete the file. ValueError: rows are missing."""
        ...

    def abort(self) -> None:
        """Give up; nothing more is written."""
        ...


def format_facts(name: str) -> FormatFacts:
    """The format of that name or suffix (``jpg``, ``.JPG``); UnsupportedPictureError where none is written."""
    wanted = "." + name.lower().removeprefix(".")
    for facts in FORMATS.values():
        if wanted in (f".{facts.name}", *facts.suffixes):
            return facts
    raise UnsupportedPictureError(f"{name} cannot be written", hint=f"choose one of {', '.join(FORMATS)} with -f")


def check_output_size(picture_format: str, width: int, height: int) -> None:
    """PictureTooLargeError if the format cannot hold width x height pixels; to be asked before the work."""
    facts = format_facts(picture_format)
    if max(width, height) > facts.longest:
        raise PictureTooLargeError(
            f"{facts.title} holds at most {facts.longest} pixels a side, the result has {width} x {height}",
            hint="choose PNG with -f png, or a smaller scale",
        )


def open_encoder(
    target: Sink | Path | str,
    picture_format: str,
    *,
    width: int,
    height: int,
    mode: Mode,
    quality: int | None = None,
    icc: bytes | None = None,
    exif: bytes | None = None,
) -> Encoder:
    """An encoder to a file object, which stays open, or to a path, which appears whole when ``close`` returns.

    ``mode`` says what rows hold; alpha into JPEG is flattened over white, with a warning. ``quality``: 1 to 100, of
    lossy formats. ``exif``: the bare TIFF block. ParameterError: quality out of range; PictureTooLargeError: see
    ``check_output_size``.
    """
    facts = format_facts(picture_format)
    check_output_size(picture_format, width, height)
    if quality is not None and not 1 <= quality <= 100:  # noqa: PLR2004 - per cent
        raise ParameterError(f"a quality of {quality} is out of range", hint="choose 1 to 100 with --quality")
    if isinstance(target, (str, os.PathLike)):
        output = OutputFile(target).open()
        try:
            return _ToPath(_encoder(output, facts, width, height, mode, quality=quality, icc=icc, exif=exif), output)
        except BaseException:
            output.abort()
            raise
    return _encoder(target, facts, width, height, mode, quality=quality, icc=icc, exif=exif)


def _encoder(
    file: Sink,
    facts: FormatFacts,
    width: int,
    height: int,
    mode: Mode,
    *,
    quality: int | None,
    icc: bytes | None,
    exif: bytes | None,
) -> Encoder:
    if facts.quality is None:
        return PngEncoder(file, width=width, height=height, mode=mode, icc=icc, exif=exif)
    chosen = facts.quality if quality is None else quality
    if facts.alpha:
        return WebpEncoder(file, width=width, height=height, mode=mode, quality=chosen, icc=icc, exif=exif)
    opaque = mode.removesuffix("A")
    encoder = JpegEncoder(file, width=width, height=height, mode=opaque, quality=chosen, icc=icc, exif=exif)
    return encoder if opaque == mode else _Flattening(encoder)


class _Flattening:
    """Rows with alpha to an encoder without."""

    streams = True

    def __init__(self, encoder: JpegEncoder) -> None:
        self._encoder = encoder
        self.warnings = (*encoder.warnings, "JPEG has no alpha: flattened over white")

    def write(self, rows: NDArray[Any]) -> None:
        self._encoder.write(flattened(rows))

    def close(self) -> None:
        self._encoder.close()

    def abort(self) -> None:
        self._encoder.abort()


class _ToPath:
    """An encoder that owns its output file."""

    def __init__(self, encoder: Encoder, output: OutputFile) -> None:
        self._encoder = encoder
        self._output = output
        self.streams = encoder.streams
        self.warnings = encoder.warnings

    def write(self, rows: NDArray[Any]) -> None:
        self._encoder.write(rows)

    def close(self) -> None:
        self._encoder.close()
        self._output.commit()

    def abort(self) -> None:
        self._encoder.abort()
        self._output.abort()
