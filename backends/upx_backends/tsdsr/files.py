"""Opens what TSD-SR is published as: safetensors, pickles of tensors, and the base's two ``config.json``."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

PICKLES = (".pt", ".pth", ".ckpt")


def path_of(files: Mapping[str, str], role: str) -> Path:
    """The file for that role; BadInputError where there is none."""
    path = Path(files.get(role) or "")
    if not path.is_file():
        raise BadInputError(f"no file for {role!r}: {files.get(role)}")
    return path


def read_config(path: Path, role: str) -> dict[str, Any]:
    """A diffusers configuration."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"{role}: {path.name} is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise BadInputError(f"{role}: {path.name} holds no configuration")
    return config


def open_tensors(path: Path, role: str) -> dict[str, torch.Tensor]:
    """Name to tensor, on the CPU, mapped and not read; a bare tensor's name is "tensor"."""
    try:
        found = _open_pickle(path, role) if path.suffix.lower() in PICKLES else load_file(path)
    except (BadInputError, MemoryError):
        raise
    except SafetensorError as error:
        raise BadInputError(f"{role}: {path.name} is no safetensors file ({error})") from error
    except Exception as error:  # a file that is not what it says breaks its reader in any way there is
        raise BadInputError(f"{role}: {path.name} is damaged or holds no weights ({type(error).__name__})") from error
    tensors = {"tensor": found} if isinstance(found, torch.Tensor) else found
    if not isinstance(tensors, dict) or not all(isinstance(each, torch.Tensor) for each in tensors.values()):
        raise BadInputError(f"{role}: {path.name} holds more than named tensors")
    return tensors


def _open_pickle(path: Path, role: str) -> Any:
    """With torch's restricted unpickler; only the form that it keeps to.

    This torch also reads tar archives, and hands archives of TorchScript, which are programs, to another loader in
    spite of ``weights_only``: both are refused before it sees them.
    """
    if not zipfile.is_zipfile(path):
        raise BadInputError(f"{role}: {path.name} is of a form that is not opened here: upx models import converts it")
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
            raise BadInputError(f"{role}: {path.name} is a TorchScript archive, which holds a program, not weights")
        whole = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    return torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=not whole)
