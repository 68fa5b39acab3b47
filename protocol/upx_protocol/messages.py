"""Every message of the protocol as a frozen dataclass, checked field by field as it comes off the wire.

The specification is ``protocol/README.md``. A message's kind is its class's name; its header is a map with
string keys. Unknown keys are ignored, missing ones take their default, and a required one that is missing or
any value of a wrong type raises ``MalformedError``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, Mapping, Tuple, Type, TypeVar, Union, cast

from upx_protocol.errors import MalformedError
from upx_protocol.version import Version

Scalar = Union[str, int, float, bool, None]
M = TypeVar("M", bound="Message")
Check = Callable[[str, Any], Any]

MAX_TEXT = 16_384
MAX_BUFFERS = 256
MAX_ITEMS = 256
_I63 = 2**63 - 1


def _integer(name: str, value: Any) -> int:
    if type(value) is not int or not -1 <= value <= _I63:
        raise MalformedError(f"{name} is no integer in range")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise MalformedError(f"{name} is no number")
    return float(value)


def _text(name: str, value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise MalformedError(f"{name} is no short text")
    return value


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise MalformedError(f"{name} is no boolean")
    return value


def _version(name: str, value: Any) -> Version:
    if type(value) not in (list, tuple) or len(value) != 2:
        raise MalformedError(f"{name} is no version")
    return Version(_integer(name, value[0]), _integer(name, value[1]))


def _many(check: Check) -> Check:
    def checked(name: str, value: Any) -> Tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) > MAX_ITEMS:
            raise MalformedError(f"{name} is no short list")
        return tuple(check(name, item) for item in value)

    return checked


def _scalars(name: str, value: Any) -> Dict[str, Scalar]:
    if type(value) is not dict or len(value) > MAX_ITEMS:
        raise MalformedError(f"{name} is no short map")
    items = cast("Dict[Any, Any]", value)
    for key, item in items.items():
        if type(key) is not str or type(item) not in (str, int, float, bool, type(None)):
            raise MalformedError(f"{name} holds something that is no scalar")
    return cast("Dict[str, Scalar]", items)


def _texts(name: str, value: Any) -> Dict[str, str]:
    items = _scalars(name, value)
    return {key: _text(name, item) for key, item in items.items()}


def _buffers(name: str, value: Any) -> Tuple[Buffer, ...]:
    if type(value) not in (list, tuple) or len(value) > MAX_BUFFERS:
        raise MalformedError(f"{name} is no short list of buffers")
    return tuple(Buffer.from_wire(item) for item in value)


def _wire(check: Check, default: Any = dataclasses.MISSING, *, key: str = "") -> Any:
    """A field with its check; ``key`` where the wire's name is no Python name."""
    metadata = {"check": check, "key": key}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class _Wired:
    """Conversion between fields and a header's keys, driven by each field's check."""

    _plan: ClassVar[Tuple[Tuple[str, str, Check, bool], ...]]

    @classmethod
    def plan(cls) -> Tuple[Tuple[str, str, Check, bool], ...]:
        """(attribute, wire key, check, required) of each field; computed once a class."""
        if "_plan" not in cls.__dict__:
            cls._plan = tuple(
                (
                    f.name,
                    f.metadata["key"] or f.name,
                    f.metadata["check"],
                    f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
                )
                for f in dataclasses.fields(cls)
            )
        return cls._plan

    def to_wire(self) -> Dict[str, Any]:
        """The header's own keys, ready for msgpack."""
        return {key: _plain(getattr(self, name)) for name, key, _, _ in self.plan()}

    @classmethod
    def from_wire(cls: Type[W], header: Any) -> W:
        """Check a map and build the message; MalformedError names the first wrong key."""
        if type(header) is not dict:
            raise MalformedError(f"{cls.__name__} is no map")
        values: Dict[str, Any] = {}
        items = cast("Dict[str, Any]", header)
        for name, key, check, required in cls.plan():
            if key in items:
                values[name] = check(f"{cls.__name__}.{key}", items[key])
            elif required:
                raise MalformedError(f"{cls.__name__} lacks {key}")
        return cls(**values)


W = TypeVar("W", bound=_Wired)


def _plain(value: Any) -> Any:
    if isinstance(value, Buffer):
        return value.to_wire()
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("Tuple[Any, ...]", value)]
    return value


@dataclass(frozen=True)
class Buffer(_Wired):
    """One array beside the header. ``loc``: "inline" (its own part) or "shm" (``slot`` and ``gen`` of a ring).

    ``codec``: "raw" is the only one of 1.0. C order, little endian.
    """

    dtype: str = _wire(_text)
    shape: Tuple[int, ...] = _wire(_many(_integer))
    nbytes: int = _wire(_integer)
    loc: str = _wire(_text, "inline")
    slot: int = _wire(_integer, -1)
    gen: int = _wire(_integer, -1)
    codec: str = _wire(_text, "raw")


@dataclass(frozen=True)
class Message(_Wired):
    """Base of all messages."""

    @classmethod
    def kind(cls) -> str:
        """The message's name on the wire."""
        return cls.__name__


# --- handshake: layout frozen for ever ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello(Message):
    """A host asks for a session. ``env`` and ``build``: the fingerprints it expects, empty for any."""

    id: int = _wire(_integer)
    protocol_min: Version = _wire(_version)
    protocol_max: Version = _wire(_version)
    features: Tuple[str, ...] = _wire(_many(_text), ())
    host: str = _wire(_text, "")
    env: str = _wire(_text, "")
    build: str = _wire(_text, "")


@dataclass(frozen=True)
class Welcome(Message):
    """A session is open. ``load_key``: the key of the ``Load`` that is resident, empty where none is.

    ``credit_tiles`` and ``credit_bytes``: what the host may have in flight; ``max_bytes``: the largest part.
    """

    id: int = _wire(_integer)
    session: str = _wire(_text)
    protocol: Version = _wire(_version)
    backend: str = _wire(_text)
    features: Tuple[str, ...] = _wire(_many(_text), ())
    env: str = _wire(_text, "")
    build: str = _wire(_text, "")
    pid: int = _wire(_integer, 0)
    credit_tiles: int = _wire(_integer, 1)
    credit_bytes: int = _wire(_integer, 0)
    max_bytes: int = _wire(_integer, 0)
    load_key: str = _wire(_text, "")


@dataclass(frozen=True)
class Reject(Message):
    """A message is refused: reason "version", "leaving", "session", "busy", "identity" or "malformed"."""

    id: int = _wire(_integer, 0)
    reason: str = _wire(_text, "malformed")
    message: str = _wire(_text, "")
    protocol_min: Version = _wire(_version, Version(0, 0))
    protocol_max: Version = _wire(_version, Version(0, 0))


# --- the worker's state ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready(Message):
    """The backend is imported and can load. Memory in bytes, 0 where unknown."""

    device: str = _wire(_text)
    device_name: str = _wire(_text, "")
    memory_total: int = _wire(_integer, 0)
    memory_free: int = _wire(_integer, 0)
    precisions: Tuple[str, ...] = _wire(_many(_text), ("fp32",))


@dataclass(frozen=True)
class Load(Message):
    """Make a model resident. ``key`` is the host's digest of everything below; the same key twice is no work.

    ``files`` maps an asset's role to a path on the worker's machine; ``threads`` 0 lets the backend choose.
    """

    id: int = _wire(_integer)
    key: str = _wire(_text)
    model: str = _wire(_text)
    files: Mapping[str, str] = _wire(_texts, {})
    device: str = _wire(_text, "cpu")
    precision: str = _wire(_text, "fp32")
    threads: int = _wire(_integer, 0)
    params: Mapping[str, Scalar] = _wire(_scalars, {})
    deadline_ms: int = _wire(_integer, 0)


@dataclass(frozen=True)
class Loaded(Message):
    """A model is resident under ``load_id``; an empty one answers ``Unload``. Sizes in input pixels."""

    id: int = _wire(_integer)
    load_id: str = _wire(_text)
    key: str = _wire(_text, "")
    scale: int = _wire(_integer, 1)
    minimum: int = _wire(_integer, 1)
    multiple_of: int = _wire(_integer, 1)
    square: bool = _wire(_flag, default=False)
    fixed: int = _wire(_integer, 0)
    device: str = _wire(_text, "cpu")
    device_name: str = _wire(_text, "")
    precision: str = _wire(_text, "fp32")
    dtypes: Tuple[str, ...] = _wire(_many(_text), ("uint8", "float32"))
    seconds: float = _wire(_number, 0.0)


@dataclass(frozen=True)
class Unload(Message):
    """Give the resident model's memory back."""

    id: int = _wire(_integer)


# --- work --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upscale(Message):
    """A batch of tiles of one shape (H, W, 3) and one dtype; buffer ``i`` is answered by ``TileDone`` ``i``.

    ``seeds``: one per buffer, or empty; ``deadline_ms`` counts from ``Started``, 0 for none.
    """

    id: int = _wire(_integer)
    attempt: int = _wire(_integer)
    load_id: str = _wire(_text)
    bufs: Tuple[Buffer, ...] = _wire(_buffers)
    out_dtype: str = _wire(_text, "uint8")
    seeds: Tuple[int, ...] = _wire(_many(_integer), ())
    params: Mapping[str, Scalar] = _wire(_scalars, {})
    deadline_ms: int = _wire(_integer, 0)


@dataclass(frozen=True)
class Accepted(Message):
    """The batch is queued."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer)


@dataclass(frozen=True)
class Started(Message):
    """The batch is being computed; its deadline runs."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer)


@dataclass(frozen=True)
class TileDone(Message):
    """One tile's result (H * scale, W * scale, 3). ``seconds``: compute time of its batch, shared evenly."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer)
    index: int = _wire(_integer)
    bufs: Tuple[Buffer, ...] = _wire(_buffers)
    seconds: float = _wire(_number, 0.0)


@dataclass(frozen=True)
class Failed(Message):
    """A request failed as a whole. ``failure`` ("class" on the wire): oom, input, transient or fatal."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer, 0)
    failure: str = _wire(_text, "fatal", key="class")
    retryable: bool = _wire(_flag, default=False)
    message: str = _wire(_text, "")


@dataclass(frozen=True)
class Cancel(Message):
    """Drop a batch that is queued; one that is being computed ends, and its answer is not sent."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer, 0)


@dataclass(frozen=True)
class Cancelled(Message):
    """The batch is gone; no more answers come for it."""

    id: int = _wire(_integer)
    attempt: int = _wire(_integer, 0)


@dataclass(frozen=True)
class Credit(Message):
    """The worker gives credit back: so many tiles and bytes more."""

    tiles: int = _wire(_integer)
    bytes: int = _wire(_integer)


@dataclass(frozen=True)
class Release(Message):
    """The receiver is done with slots of the shared-memory ring."""

    slots: Tuple[int, ...] = _wire(_many(_integer))
    gens: Tuple[int, ...] = _wire(_many(_integer))


# --- liveness, reports, leaving ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ping(Message):
    """Are you there?"""

    nonce: int = _wire(_integer)


@dataclass(frozen=True)
class Pong(Message):
    """Yes. ``queued``: tiles waiting or being computed for all hosts; ``hosts``: sessions; memory in bytes."""

    nonce: int = _wire(_integer)
    queued: int = _wire(_integer, 0)
    hosts: int = _wire(_integer, 0)
    memory: int = _wire(_integer, 0)
    tiles_done: int = _wire(_integer, 0)


@dataclass(frozen=True)
class Progress(Message):
    """How far a ``Load`` is: ``done`` of ``total`` in ``stage``."""

    id: int = _wire(_integer)
    stage: str = _wire(_text)
    done: float = _wire(_number, 0.0)
    total: float = _wire(_number, 0.0)


@dataclass(frozen=True)
class Log(Message):
    """A log record of the worker; ``time`` in seconds since the epoch."""

    level: str = _wire(_text)
    logger: str = _wire(_text)
    message: str = _wire(_text)
    time: float = _wire(_number, 0.0)


@dataclass(frozen=True)
class Drain(Message):
    """Finish what is queued, take nothing new, then leave."""

    id: int = _wire(_integer)


@dataclass(frozen=True)
class Drained(Message):
    """All is done; the worker leaves."""

    id: int = _wire(_integer)


@dataclass(frozen=True)
class Bye(Message):
    """The sender ends the session (a host) or is leaving (a worker)."""

    reason: str = _wire(_text, "")


@dataclass(frozen=True)
class Unknown:
    """A message of a kind that this version does not know; ignored, since it is not critical."""

    name: str


HANDSHAKES: Tuple[Type[Message], ...] = (Hello, Welcome, Reject)
KINDS: Dict[str, Type[Message]] = {
    cls.kind(): cls
    for cls in (
        *HANDSHAKES, Ready, Load, Loaded, Unload, Upscale, Accepted, Started, TileDone, Failed, Cancel, Cancelled,
        Credit, Release, Ping, Pong, Progress, Log, Drain, Drained, Bye,
    )
}  # fmt: skip
