"""What the name of an output may say of its picture: the size of the result, and a digest of the input's bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from upx.naming import Content
from upx.pipeline.run import open_source

if TYPE_CHECKING:
    from upx.pipeline.job import Source

HASH_DIGITS = 12


def content_of(source: Source, scale: float) -> Content:
    """Width and height of the output as shown, and 12 hex digits of the input's sha256.

    The picture is decoded, so that a damaged one is found here already: InputError and its subclasses.
    """
    with open_source(source) as picture:
        return Content(round(picture.width * scale), round(picture.height * scale), _digest(source))


def _digest(source: Source) -> str:
    """Of a file's bytes; of what is in memory, its pixels' bytes."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]
    content = source if isinstance(source, bytes) else np.ascontiguousarray(source).tobytes()
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
