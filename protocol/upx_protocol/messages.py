"""Every message of the protocol as a frozen dataclass, checked field by field as it comes off the wire.

The specification is ``protocol/README.md``. A message's kind is its class's name; its header is a map with
string keys (``fields`` says how keys become fields). The handshake's three stand in ``handshake``, those of
shared memory in ``sharing``, those of files that are sent in ``files``, those of a worker's life in ``liveness``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Mapping, Tuple, Type

from upx_protocol.echoes import Echo, Echoed
from upx_protocol.fields import (
    MAX_BUFFERS,
    MAX_ITEMS,
    MAX_TEXT,
    Buffer,
    Message,
    Scalar,
    buffers,
    flag,
    integer,
    many,
    number,
    scalars,
    text,
    texts,
    wire,
)
from upx_protocol.files import Chunk, Offer, Taken, Want, Wanted
from upx_protocol.handshake import HANDSHAKES, Hello, Reject, Welcome
from upx_protocol.liveness import Bye, Drain, Drained, Log, Ping, Pong, Progress
from upx_protocol.sharing import Mapped, Release, Ring

__all__ = [
    "HANDSHAKES",
    "KINDS",
    "MAX_BUFFERS",
    "MAX_ITEMS",
    "MAX_TEXT",
    "Accepted",
    "Buffer",
    "Bye",
    "Cancel",
    "Cancelled",
    "Chunk",
    "Credit",
    "Drain",
    "Drained",
    "Echo",
    "Echoed",
    "Failed",
    "Hello",
    "Load",
    "Loaded",
    "Log",
    "Mapped",
    "Message",
    "Offer",
    "Ping",
    "Pong",
    "Progress",
    "Ready",
    "Reject",
    "Release",
    "Ring",
    "Scalar",
    "Started",
    "Taken",
    "TileDone",
    "Unknown",
    "Unload",
    "Upscale",
    "Want",
    "Wanted",
    "Welcome",
]

# --- the worker's state


@dataclass(frozen=True)
class Ready(Message):
    """The backend is imported and can load. Memory in bytes, 0 where unknown; ``models``: empty where not told."""

    device: str = wire(text)
    device_name: str = wire(text, "")
    memory_total: int = wire(integer, 0)
    memory_free: int = wire(integer, 0)
    precisions: Tuple[str, ...] = wire(many(text), ("fp32",))
    models: Tuple[str, ...] = wire(many(text), ())


@dataclass(frozen=True)
class Load(Message):
    """Make a model resident. ``key`` is the host's digest of everything below; the same key twice is no work.

    ``files``: role to path on the worker's machine; ``threads`` 0: the backend chooses. A worker that serves a network
    finds files by ``model`` itself, and compares them with ``weights`` (SHA-256) if it is told.
    """

    id: int = wire(integer)
    key: str = wire(text)
    model: str = wire(text)
    files: Mapping[str, str] = wire(texts, {})
    device: str = wire(text, "cpu")
    precision: str = wire(text, "fp32")
    threads: int = wire(integer, 0)
    params: Mapping[str, Scalar] = wire(scalars, {})
    deadline_ms: int = wire(integer, 0)
    weights: str = wire(text, "")


@dataclass(frozen=True)
class Loaded(Message):
    """A model is resident under ``load_id`` (empty: ``Unload`` is done). Sizes in pixels; ``weights``: SHA-256."""

    id: int = wire(integer)
    load_id: str = wire(text)
    key: str = wire(text, "")
    scale: int = wire(integer, 1)
    minimum: int = wire(integer, 1)
    multiple_of: int = wire(integer, 1)
    square: bool = wire(flag, default=False)
    fixed: int = wire(integer, 0)
    device: str = wire(text, "cpu")
    device_name: str = wire(text, "")
    precision: str = wire(text, "fp32")
    dtypes: Tuple[str, ...] = wire(many(text), ("uint8", "float32"))
    seconds: float = wire(number, 0.0)
    weights: str = wire(text, "")


@dataclass(frozen=True)
class Unload(Message):
    """Give the resident model's memory back."""

    id: int = wire(integer)


# --- work


@dataclass(frozen=True)
class Upscale(Message):
    """A batch of tiles of one shape (H, W, 3) and one dtype; buffer ``i`` is answered by ``TileDone`` ``i``.

    ``seeds``: one per buffer, or empty; ``deadline_ms`` counts from ``Started``, 0 for none. ``outs``: the slots that
    the results go into, one per buffer, where the tiles lie in a ring. ``codec``: how
    results that travel should come.
    """

    id: int = wire(integer)
    attempt: int = wire(integer)
    load_id: str = wire(text)
    bufs: Tuple[Buffer, ...] = wire(buffers)
    out_dtype: str = wire(text, "uint8")
    seeds: Tuple[int, ...] = wire(many(integer), ())
    params: Mapping[str, Scalar] = wire(scalars, {})
    deadline_ms: int = wire(integer, 0)
    outs: Tuple[Buffer, ...] = wire(buffers, ())
    codec: str = wire(text, "raw")


@dataclass(frozen=True)
class Accepted(Message):
    """The batch is queued."""

    id: int = wire(integer)
    attempt: int = wire(integer)


@dataclass(frozen=True)
class Started(Message):
    """The batch is being computed; its deadline runs."""

    id: int = wire(integer)
    attempt: int = wire(integer)


@dataclass(frozen=True)
class TileDone(Message):
    """One tile's result (H * scale, W * scale, 3). ``seconds``: compute time of its batch, shared evenly."""

    id: int = wire(integer)
    attempt: int = wire(integer)
    index: int = wire(integer)
    bufs: Tuple[Buffer, ...] = wire(buffers)
    seconds: float = wire(number, 0.0)


@dataclass(frozen=True)
class Failed(Message):
    """A request failed as a whole. ``failure`` ("class" on the wire): oom, input, transient or fatal."""

    id: int = wire(integer)
    attempt: int = wire(integer, 0)
    failure: str = wire(text, "fatal", key="class")
    retryable: bool = wire(flag, default=False)
    message: str = wire(text, "")


@dataclass(frozen=True)
class Cancel(Message):
    """Drop a batch that is queued; one that is being computed ends, and its answer is not sent."""

    id: int = wire(integer)
    attempt: int = wire(integer, 0)


@dataclass(frozen=True)
class Cancelled(Message):
    """The batch is gone; no more answers come for it."""

    id: int = wire(integer)
    attempt: int = wire(integer, 0)


@dataclass(frozen=True)
class Credit(Message):
    """The worker gives credit back: so many tiles and bytes more."""

    tiles: int = wire(integer)
    bytes: int = wire(integer)


@dataclass(frozen=True)
class Unknown:
    """A message of a kind that this version does not know; ignored, since it is not critical."""

    name: str


#: Every kind by its name on the wire.
KINDS: Dict[str, Type[Message]] = {
    cls.kind(): cls
    for cls in (
        *HANDSHAKES, Ready, Load, Loaded, Unload, Upscale, Accepted, Started, TileDone, Failed, Cancel, Cancelled,
        Credit, Ring, Mapped, Release, Echo, Echoed, Want, Offer, Chunk, Taken, Ping, Pong, Progress, Log, Drain,
        Drained, Bye,
    )
}  # fmt: skip
