"""Opens the two files of weights and fills the network with them, tensor by tensor, or says what is wrong.

safetensors, with the tensors bare or under the names that upstream's training gives them; or what torch saved, a zip,
as upstream publishes it. A zip is mapped and opened with ``weights_only``. The older form, one pickle after the other,
and TorchScript archives are refused: this environment's torch opens them in ways that ``weights_only`` does not guard.
"""

from __future__ import annotations

import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from upx_backends.varsr.config import read_config
from upx_backends.varsr.model import VARSR
from upx_backends.varsr.vqvae import VQVAE
from upx_protocol.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    Progress = Callable[[str, float, float], None]

ZIP = b"PK\x03\x04"
# Where upstream's training keeps a network, and what of it enlarging does not need: a mask and tables for training, and
# a bias of the keys that is nothing but zeros.
TRAINER = "trainer"
KEPT_AS = {"var": "var_wo_ddp", "vqvae": "vae_local"}
IGNORED = {
    "var": ("lvl_1L", "attn_bias_for_masking", "blocks.*.attn.zero_k_bias"),
    "vqvae": ("encoder.*", "quant_conv.*", "quantize.ema_vocab_hit_SV"),
}


def load_networks(
    files: Mapping[str, str], device: torch.device, progress: Progress, half: torch.dtype | None = None
) -> tuple[VARSR, VQVAE]:
    """The networks with the weights of roles "var" and "vqvae", float32; role "config" may change their sizes.

    ``half``: what the transformer will be autocast to; its matrices and kernels are kept in that, as rounded then.
    """
    config = read_config(files.get("config"))
    with torch.device("meta"):
        var, vae = VARSR(config), VQVAE(config)
    for done, (role, network) in enumerate((("vqvae", vae), ("var", var))):
        progress("reading the weights", done, 2)
        path = Path(files.get(role, ""))
        if not path.is_file():
            raise BadInputError(f"no file for {role!r}: {files.get(role)}")
        lowered = half if role == "var" else None
        fill(network, read_tensors(path, KEPT_AS[role]), IGNORED[role], path.name, device, lowered)
    progress("reading the weights", 2, 2)
    return var, vae


def read_tensors(path: Path, kept_as: str) -> dict[str, Tensor]:
    """The tensors of the network that is ``kept_as`` that in a trainer, by their bare names; mapped, not read."""
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP)) == ZIP
        table = _from_zip(path) if is_zip else _from_safetensors(path)
    except (BadInputError, MemoryError):
        raise
    except Exception as error:  # a file that is not what it says breaks its reader in any way there is
        # Torch begins with the advice to trust the file.
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0][:300]
        raise BadInputError(
            f"{path.name} is neither safetensors nor a zip of tensors that torch saved, or it is damaged; "
            f"upx models import opens more ({type(error).__name__}: {reason})"
        ) from error
    return {name: value for name, value in _unwrapped(table, kept_as).items() if isinstance(value, torch.Tensor)}


def _from_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping


def _from_zip(path: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(each.filename.endswith("/constants.pkl") or "/code/" in each.filename for each in members):
        raise BadInputError(f"{path.name} is a TorchScript archive, which holds a program; its weights are needed")
    if any(each.compress_type != zipfile.ZIP_STORED for each in members):
        raise BadInputError(f"{path.name} was compressed after torch saved it, which only upx models import can open")
    table = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(table, dict):
        raise BadInputError(f"{path.name} holds a {type(table).__name__}, and no tensors by name")
    return table


def _unwrapped(table: Mapping[str, Any], kept_as: str) -> Mapping[str, Any]:
    """What lies under "trainer" and ``kept_as``, as keys of a pickle or as beginnings of names; else all of it."""
    for key in (TRAINER, kept_as):
        inner = table.get(key)
        under = {name[len(key) + 1 :]: value for name, value in table.items() if name.startswith(f"{key}.")}
        table = inner if isinstance(inner, dict) else under or table
    return table


def fill(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    ignored: tuple[str, ...],
    file: str,
    device: torch.device,
    half: torch.dtype | None = None,
) -> None:
    """Give every parameter its tensor on ``device``; BadInputError names the first that does not fit.

    As float32, but with ``half`` the parameters of linear and convolutional layers.
    """
    wanted = network.state_dict()
    for name, slot in wanted.items():
        if name not in tensors:
            raise BadInputError(f"{file}: {name} is missing ({len(wanted.keys() - tensors.keys())} in all)")
        has, wants = list(tensors[name].shape), list(slot.shape)
        if has != wants:
            raise BadInputError(f"{file}: {name} has the shape {has} and must have {wants}")
        if not tensors[name].is_floating_point():
            raise BadInputError(f"{file}: {name} holds {tensors[name].dtype}, and no floats")
    for name in tensors:
        if name not in wanted and not any(fnmatchcase(name, pattern) for pattern in ignored):
            raise BadInputError(f"{file}: {name} is none of this network's tensors")
    layers = {name for name, each in network.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d))}
    dtypes = {name: half if half and name.rpartition(".")[0] in layers else torch.float32 for name in wanted}
    filled = {name: tensors[name].to(device=device, dtype=dtypes[name]) for name in wanted}
    network.load_state_dict(filled, strict=True, assign=True)
    network.requires_grad_(False).eval()
