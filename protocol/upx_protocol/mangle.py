"""Hostile input for tests, repeatable by its seed: good messages, broken in every way that a wire can break them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Sequence, cast

import msgpack
import numpy as np

from upx_protocol.codec import MAX_HEADER, encode
from upx_protocol.messages import (
    Accepted,
    Buffer,
    Bye,
    Cancel,
    Cancelled,
    Chunk,
    Credit,
    Drain,
    Drained,
    Echo,
    Echoed,
    Failed,
    Hello,
    Load,
    Loaded,
    Log,
    Mapped,
    Message,
    Offer,
    Ping,
    Pong,
    Progress,
    Ready,
    Reject,
    Release,
    Ring,
    Started,
    Taken,
    TileDone,
    Unload,
    Upscale,
    Want,
    Wanted,
    Welcome,
)
from upx_protocol.version import NEWEST, OLDEST, Version

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parts = List[bytes]
# msgpack ships no types.
_packb = cast("Callable[..., bytes]", msgpack.packb)
_unpackb = cast("Callable[..., Any]", msgpack.unpackb)
TILE = np.full((5, 6, 3), 77, np.uint8)
SLOT = Buffer("uint8", (5, 6, 3), 90, "shm", 0, 1)


def host_messages(session: str, load_id: str) -> List[Parts]:
    """One of each kind that a host sends, in a session. ``Drain`` names another one: obeying it is no fault."""
    tiles = [TILE, TILE, TILE]
    work = [
        _parts(Upscale(9, 0, load_id, (), seeds=(1, 2, 3), params={"sleep": 0}), session, tiles),
        _parts(Upscale(10, 0, "another load", ()), session, tiles[:1]),
        _parts(Upscale(11, 0, load_id, (), out_dtype="float64"), session, tiles[:1]),
        _parts(Upscale(12, 0, load_id, (SLOT, SLOT), outs=(SLOT, SLOT)), session),
        _parts(Echo(13, ()), session, tiles[:1]),
        _parts(Chunk(14, 0, ()), session, [TILE.reshape(-1)]),
    ]
    says: Sequence[Message] = (
        Load(2, "mangled", "model", files={"weights": "/nowhere"}, params={"a": 1, "b": None}),
        Unload(3),
        Cancel(9),
        Ping(1),
        Ring(5, 1, 0, 2, 3, 1 << 20),
        Release((1, 2), (3, 4)),
        Offer(14, "ab" * 32, 90),
        Bye("enough"),
    )
    hellos = (Hello(1, OLDEST, NEWEST), Hello(1, Version(7, 0), Version(8, 0)))
    return [*work, *(_parts(m, session) for m in says), *(_parts(m) for m in hellos), _parts(Drain(4), "nobody")]


def worker_messages(session: str) -> List[Parts]:
    """One of each kind that a worker sends, in a session."""
    says: Sequence[Message] = (
        Welcome(1, session, NEWEST, "backend", credit_tiles=4),
        Reject(1, "busy"),
        Ready("cpu"),
        Loaded(2, "load"),
        Accepted(9, 0),
        Started(9, 0),
        Failed(9, 0, "oom"),
        Cancelled(9, 0),
        Credit(1, 90),
        Mapped(5),
        TileDone(9, 0, 0, (SLOT,)),
        Pong(1),
        Progress(2, "reading", 1.0, 2.0),
        Log("INFO", "upx", "hello"),
        Want(2, (Wanted("weights", "w.bin", "ab" * 32, 90),), "it is not here"),
        Taken(14, 0, 90),
        Drained(4),
        Bye("leaving"),
    )
    arrays = (_parts(TileDone(9, 0, 0, ()), session, [TILE]), _parts(Echoed(13, ()), session, [TILE]))
    return [*arrays, *(_parts(message, session) for message in says)]


def mangled(seed: int, good: Sequence[Parts]) -> Iterator[Parts]:
    """Endless broken messages, of 1 to 300 parts; about one in ten is good, but comes out of turn."""
    rng = random.Random(seed)  # noqa: S311  repeatable, not secret
    ways: Sequence[Callable[[random.Random, Parts], Parts]] = (
        _flip,
        _revalue,
        _revalue,
        _revalue,
        _cut,
        _insert,
        _shuffle,
        _lose,
        _double,
        _noise,
        _untouched,
    )
    while True:
        parts = list(rng.choice(good))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            parts = rng.choice(ways)(rng, parts)
        # Rare, since they are slow to make, not since they are harmless.
        if rng.random() < 1 / 500:
            parts = _huge(rng, parts)
        yield parts


def _parts(message: Message, session: str = "", arrays: Sequence[NDArray[np.uint8]] = ()) -> Parts:
    return [bytes(part) for part in encode(message, session=session, arrays=arrays)]


def _place(rng: random.Random, parts: Parts) -> int:
    # The header is where the meaning is.
    return 0 if rng.random() < 0.8 else rng.randrange(len(parts))  # noqa: PLR2004


def _flip(rng: random.Random, parts: Parts) -> Parts:
    place = _place(rng, parts)
    data = bytearray(parts[place])
    for _ in range(rng.randint(1, 3) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return [*parts[:place], bytes(data), *parts[place + 1 :]]


def _revalue(rng: random.Random, parts: Parts) -> Parts:
    """Good msgpack, wrong contents: one key gets another value."""
    try:
        header: Any = _unpackb(parts[0])
    except ValueError:
        return parts
    if type(header) is not dict or not header:
        return parts
    deep: Any = {"a": [1]}
    values: Sequence[Any] = (-1, 0, 1, 2**63, -(2**62), 1.5, float("nan"), "", "s" * 70, True, None, b"", [[1]], deep)
    changed = cast("Dict[str, Any]", header)
    changed[rng.choice(list(changed))] = rng.choice(values)
    return [_packb(changed), *parts[1:]]


def _cut(rng: random.Random, parts: Parts) -> Parts:
    place = _place(rng, parts)
    return [*parts[:place], parts[place][: rng.randint(0, len(parts[place]))], *parts[place + 1 :]]


def _insert(rng: random.Random, parts: Parts) -> Parts:
    place = _place(rng, parts)
    at = rng.randint(0, len(parts[place]))
    data = parts[place][:at] + rng.getrandbits(8 * 4).to_bytes(4, "big") + parts[place][at:]
    return [*parts[:place], data, *parts[place + 1 :]]


def _shuffle(rng: random.Random, parts: Parts) -> Parts:
    return rng.sample(parts, len(parts))


def _lose(rng: random.Random, parts: Parts) -> Parts:
    lost = rng.randrange(len(parts))
    return [part for index, part in enumerate(parts) if index != lost] or [b""]


def _double(rng: random.Random, parts: Parts) -> Parts:
    return [*parts, rng.choice(parts)]


def _noise(rng: random.Random, parts: Parts) -> Parts:
    size = rng.randint(0, 60)
    return [rng.getrandbits(8 * size + 1).to_bytes(size + 1, "big"), *parts[1:]]


def _untouched(_rng: random.Random, parts: Parts) -> Parts:
    return parts


def _huge(rng: random.Random, parts: Parts) -> Parts:
    what = rng.randrange(4)
    if what == 0:
        return [b"\x91" * MAX_HEADER]
    if what == 1:
        return [parts[0] + b"\0" * MAX_HEADER, *parts[1:]]
    if what == 2:  # noqa: PLR2004
        return parts[:1] * 300
    return [b"\xdd\xff\xff\xff\xff" + b"\x90" * 1000]
