"""How a header's keys become checked fields: the machinery below every message.

A field is declared with ``wire(check, default)``; ``Wired.from_wire`` runs each check on what came in. Unknown
keys are ignored, missing ones take their default, and a required one that is missing or any value of a wrong
type or size raises ``MalformedError``.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, List, Tuple, Type, TypeVar, Union, cast

from upx_protocol.errors import MalformedError
from upx_protocol.version import Version

Scalar = Union[str, int, float, bool, None]
Check = Callable[[str, Any], Any]
W = TypeVar("W", bound="Wired")

#: Characters of one text; items of one list or map; buffers of one message.
MAX_TEXT = 16_384
MAX_ITEMS = 256
MAX_BUFFERS = 256
_I63 = 2**63 - 1


def integer(name: str, value: Any) -> int:
    """-1 to 2**63 - 1; a boolean is no integer."""
    if type(value) is not int or not -1 <= value <= _I63:
        raise MalformedError(f"{name} is no integer in range")
    return value


def number(name: str, value: Any) -> float:
    """A finite float; an integer will do."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise MalformedError(f"{name} is no finite number")
    return float(value)


def text(name: str, value: Any) -> str:
    """At most 16,384 characters."""
    if type(value) is not str or len(value) > MAX_TEXT:
        raise MalformedError(f"{name} is no short text")
    return value


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise MalformedError(f"{name} is no boolean")
    return value


def version(name: str, value: Any) -> Version:
    """A list of two integers: major, minor."""
    pair = _short_list(name, value)
    if len(pair) != len(Version._fields):
        raise MalformedError(f"{name} is no version")
    return Version(integer(name, pair[0]), integer(name, pair[1]))


def many(check: Check) -> Check:
    """A list of at most 256 items that each pass ``check``."""

    def checked(name: str, value: Any) -> Tuple[Any, ...]:
        return tuple(check(name, item) for item in _short_list(name, value))

    return checked


def scalars(name: str, value: Any) -> Dict[str, Scalar]:
    """A map of at most 256 texts to scalars."""
    if type(value) is not dict:
        raise MalformedError(f"{name} is no map")
    items = cast("Dict[Any, Any]", value)
    if len(items) > MAX_ITEMS:
        raise MalformedError(f"{name} is no short map")
    for key, item in items.items():
        if type(key) is not str or type(item) not in (str, int, float, bool, type(None)):
            raise MalformedError(f"{name} holds something that is no scalar")
    return cast("Dict[str, Scalar]", items)


def texts(name: str, value: Any) -> Dict[str, str]:
    """A map of at most 256 texts to texts."""
    return {key: text(name, item) for key, item in scalars(name, value).items()}


def buffers(name: str, value: Any) -> Tuple[Buffer, ...]:
    """A list of at most 256 descriptions of arrays."""
    items = _short_list(name, value)
    return tuple(Buffer.from_wire(item) for item in items)


def _short_list(name: str, value: Any) -> List[Any]:
    if type(value) is not list:
        raise MalformedError(f"{name} is no list")
    items = cast("List[Any]", value)
    if len(items) > MAX_ITEMS:
        raise MalformedError(f"{name} is no short list")
    return items


def wire(check: Check, default: Any = dataclasses.MISSING, *, key: str = "") -> Any:
    """A field with its check; ``key`` where the wire's name is no Python name."""
    metadata = {"check": check, "key": key}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict[str, Any], metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Wired:
    """Conversion between fields and a header's keys, driven by each field's check."""

    _plan: ClassVar[Tuple[Tuple[str, str, Check, str, Any], ...]]

    @classmethod
    def plan(cls) -> Tuple[Tuple[str, str, Check, str, Any], ...]:
        """(attribute, wire key, check, name in errors, default) of each field; computed once a class.

        The default is ``dataclasses.MISSING`` for a required key, and ``dict`` where each message has its own.
        """
        if "_plan" not in cls.__dict__:
            cls._plan = tuple(
                (
                    f.name,
                    f.metadata["key"] or f.name,
                    f.metadata["check"],
                    f"{cls.__name__}.{f.metadata['key'] or f.name}",
                    f.default if f.default_factory is dataclasses.MISSING else dict,
                )
                for f in dataclasses.fields(cls)
            )
        return cls._plan

    def to_wire(self) -> Dict[str, Any]:
        """The header's own keys, ready for msgpack."""
        return {key: _plain(getattr(self, name)) for name, key, _, _, _ in self.plan()}

    @classmethod
    def from_wire(cls: Type[W], header: Any) -> W:
        """Check a map and build the message; MalformedError names the first wrong key."""
        if type(header) is not dict:
            raise MalformedError(f"{cls.__name__} is no map")
        # Filled past the constructor: that of a frozen class takes as long as all checks together.
        made = object.__new__(cls)
        values, items = made.__dict__, cast("Dict[str, Any]", header)
        for name, key, check, said, default in cls.plan():
            if key in items:
                values[name] = check(said, items[key])
            elif default is dataclasses.MISSING:
                raise MalformedError(f"{cls.__name__} lacks {key}")
            else:
                values[name] = {} if default is dict else default
        return made


def _plain(value: Any) -> Any:
    """Ready for msgpack, which takes tuples for lists."""
    if type(value) is not tuple:
        return value
    items = cast("Tuple[Any, ...]", value)
    return [item.to_wire() for item in items] if items and isinstance(items[0], Wired) else items


@dataclass(frozen=True)
class Buffer(Wired):
    """One array beside the header. ``loc``: "inline" (its own part) or "shm" (``slot`` and ``gen`` of a ring).

    ``codec``: "raw" is C order, little endian; a part that is "deflate" has fewer bytes than ``nbytes`` says.
    """

    dtype: str = wire(text)
    shape: Tuple[int, ...] = wire(many(integer))
    nbytes: int = wire(integer)
    loc: str = wire(text, "inline")
    slot: int = wire(integer, -1)
    gen: int = wire(integer, -1)
    codec: str = wire(text, "raw")

    def to_wire(self) -> Dict[str, Any]:
        """The fields are the keys; hundreds of them travel with a batch."""
        return {**self.__dict__, "shape": list(self.shape)}

    @classmethod
    def in_ring(cls, dtype: str, shape: Tuple[int, ...], nbytes: int, slot: int, gen: int) -> Buffer:
        """One whose array lies in a ring; past the slow constructor of a frozen class."""
        made = object.__new__(cls)
        made.__dict__.update(dtype=dtype, shape=shape, nbytes=nbytes, loc="shm", slot=slot, gen=gen, codec="raw")
        return made


@dataclass(frozen=True)
class Message(Wired):
    """Base of all messages."""

    @classmethod
    def kind(cls) -> str:
        """The message's name on the wire."""
        return cls.__name__
