"""Open a picture file: whole and decoded, or refused with one line that says why.

Only decoders listed here run, so that a file's content never chooses a rarely tested one (or Ghostscript).
"""

from __future__ import annotations

import importlib
import io
import stat
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from PIL import Image

from upx.errors import InputError, PictureTooLargeError, UnreadablePictureError, UnsupportedPictureError
from upx.media.conversion import depth_warnings
from upx.media.sources import from_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.ImageFile import ImageFile

    from upx.media.picture import Picture

MAX_PIXELS = 512_000_000
# First bytes, Pillow's name of the format, its module.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", "PngImagePlugin"),
    (b"\xff\xd8\xff", "JPEG", "JpegImagePlugin"),
    (b"RIFF", "WEBP", "WebPImagePlugin"),
    (b"GIF8", "GIF", "GifImagePlugin"),
    (b"BM", "BMP", "BmpImagePlugin"),
    (b"II*\x00", "TIFF", "TiffImagePlugin"),
    (b"MM\x00*", "TIFF", "TiffImagePlugin"),
    *((b"P%d" % number, "PPM", "PpmImagePlugin") for number in range(1, 7)),
)
_READS = "PNG, JPEG, WebP, GIF, BMP, TIFF or PNM"
_HEADER = 32
# A JPEG with more pictures in it (MPO) holds previews and depth maps, no animation.
_ANIMATED = {"PNG", "GIF", "WEBP"}
_BITS_PER_SAMPLE = 258
_EXIF_DIRECTORY = 0x8769
# Python's warning filters belong to the process: only one thread may set them aside at a time.
_QUIET = threading.Lock()


def open_picture(source: Path | str | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read and decode the picture at a path, which is closed when this returns, or in the bytes of a file.

    Held afterwards: Pillow's copy, 4 bytes a pixel (1 for grey); a conversion holds two for a moment.
    UnreadablePictureError: no such file, no permission, a directory, empty, not a picture, damaged or truncated.
    PictureTooLargeError: more than ``max_pixels``, known from the header. UnsupportedPictureError: see ``from_image``.
    """
    path = Path("stdin") if isinstance(source, bytes) else Path(source)
    with _open_bytes(source) if isinstance(source, bytes) else _open_file(path) as file:
        header = file.read(_HEADER)
        image = _read_header(file, header, path)
        try:
            _check_size(image, path, max_pixels)
            notes = _notes(image, header)
            _decode(image, path)
            name = (image.format or "").lower()
            name = "jpeg" if name == "mpo" else name
            return from_image(image, name=str(path), owned=True, picture_format=name, warnings=tuple(notes))
        except BaseException:
            image.close()
            raise


def _open_bytes(content: bytes) -> BinaryIO:
    if not content:
        raise UnreadablePictureError("stdin: is empty", hint="pipe a whole picture file into it")
    return io.BytesIO(content)


def _open_file(path: Path) -> BinaryIO:
    """The file, if it is a regular one with content: opening a pipe would wait for ever."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnreadablePictureError(f"{path}: is a directory", hint="name the pictures in it")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadablePictureError(f"{path}: is not a regular file", hint="name a picture file")
        if not status.st_size:
            raise UnreadablePictureError(f"{path}: is empty", hint="copy or download the picture again")
        return path.open("rb")
    except PermissionError as error:
        raise UnreadablePictureError(f"{path}: no permission to read it", hint="check its owner and mode") from error
    except FileNotFoundError as error:
        raise UnreadablePictureError(f"{path}: no such file", hint="check the name") from error
    except (OSError, ValueError) as error:
        raise UnreadablePictureError(f"{path}: cannot be opened: {error}", hint="check the name") from error


def _read_header(file: BinaryIO, header: bytes, path: Path) -> ImageFile:
    """The picture with its header read and no pixel decoded.

    ``Image.open`` is not used: its limit on pixels is a global and half of it is a Python warning.
    """
    known = [(name, module) for first, name, module in _SIGNATURES if header.startswith(first)]
    if not known or (known[0][0] == "WEBP" and header[8:12] != b"WEBP"):
        raise UnreadablePictureError(f"{path}: is not a picture that can be read", hint=f"give {_READS}")
    name, module = known[0]
    importlib.import_module(f"PIL.{module}")
    if name not in Image.OPEN:
        raise UnsupportedPictureError(f"{path}: this Pillow cannot read {name}", hint="install Pillow's own wheel")
    factory = Image.OPEN[name][0]
    file.seek(0)
    try:
        with _QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and the like, which do not change a pixel
            return factory(file, str(path))
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(f"{path}: {error}", hint="cut it into parts") from error
    except Exception as error:  # hostile headers raise anything
        raise _damaged(path, error) from error


def _check_size(image: ImageFile, path: Path, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PictureTooLargeError(
            f"{path}: {image.width} x {image.height} pixels are more than the limit of {max_pixels}",
            hint="cut it into parts",
        )


def _decode(image: ImageFile, path: Path) -> None:
    try:
        image.load()
    except MemoryError as error:
        raise PictureTooLargeError(
            f"{path}: {image.width} x {image.height} pixels do not fit into memory", hint="cut it into parts"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(f"{path}: {error}", hint="cut it into parts") from error
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    said = str(error).partition("\n")[0] or type(error).__name__
    return UnreadablePictureError(f"{path}: damaged or truncated ({said})", hint="copy or download the picture again")


def _notes(image: ImageFile, header: bytes) -> list[str]:
    """What of the file will not be in the result."""
    tags = getattr(image, "tag_v2", {})
    bits = cast("Sequence[int]", tags.get(_BITS_PER_SAMPLE, ()))
    notes = depth_warnings(header, bits)
    if _EXIF_DIRECTORY in tags:
        notes.append("EXIF of a TIFF is not carried over")
    if image.format in _ANIMATED and getattr(image, "is_animated", False):
        notes.append("animation: only the first frame is used")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        notes.append("several pages: only the first is used")
    return notes
