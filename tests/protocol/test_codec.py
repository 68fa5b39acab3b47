"""Messages to parts and back; what is no message is refused by one error."""

from __future__ import annotations

import contextlib
import dataclasses
from itertools import islice
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upx_protocol import codec, fields, files
from upx_protocol.arrays import view
from upx_protocol.codec import MAX_HEADER, MAX_PARTS, WITH_BUFFERS, decode, encode
from upx_protocol.errors import MalformedError, UnknownKindError
from upx_protocol.messages import KINDS, Buffer, Message, Ping, TileDone, Unknown, Upscale, Wanted
from upx_protocol.packing import opened, packed
from upx_protocol.testing import host_messages, mangled, worker_messages
from upx_protocol.version import Version

NUMBERS = st.integers(-1, 2**63 - 1)
SCALARS = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False) | st.text(max_size=20)
BY_CHECK = {
    fields.integer: NUMBERS,
    fields.number: st.floats(allow_nan=False, allow_infinity=False),
    fields.text: st.text(max_size=40),
    fields.flag: st.booleans(),
    fields.version: st.builds(Version, NUMBERS, NUMBERS),
    fields.scalars: st.dictionaries(st.text(max_size=10), SCALARS, max_size=5),
    fields.texts: st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5),
    fields.buffers: st.just(()),
    files.wanted: st.lists(st.builds(Wanted, *[st.text(max_size=10)] * 3, NUMBERS), max_size=3).map(tuple),
}


def strategy(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    check = field.metadata["check"]
    if check in BY_CHECK:
        return BY_CHECK[check]
    items = NUMBERS if "int" in str(field.type) else st.text(max_size=10)
    return st.lists(items, max_size=4).map(tuple)


def message_of(kind: str) -> st.SearchStrategy[Message]:
    cls = KINDS[kind]
    return st.builds(cls, **{field.name: strategy(field) for field in dataclasses.fields(cls)})


WITHOUT_ARRAYS = sorted({name for name, cls in KINDS.items() if cls not in WITH_BUFFERS})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WITHOUT_ARRAYS).flatmap(message_of), st.text("abcdef0123456789", max_size=64))
def test_every_message_survives_the_wire(message: Message, session: str) -> None:
    received = decode(encode(message, session=session))
    assert received.message == message
    if not hasattr(message, "session"):
        assert received.session == session


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["uint8", "uint16", "float16", "float32"]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
)
def test_arrays_survive_the_wire_bit_by_bit(dtype: str, height: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tiles = [(rng.random((height, width, 3)) * 255).astype(dtype) for _ in range(count)]
    received = decode([bytes(part) for part in encode(Upscale(1, 0, "l", ()), session="s", arrays=tiles)])
    assert isinstance(received.message, Upscale)
    for tile, buffer, part in zip(tiles, received.message.bufs, received.buffers):  # noqa: B905  Python 3.9
        there = view(buffer, part)
        np.testing.assert_array_equal(there, tile)
        assert not there.flags.writeable


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_random_bytes_are_refused_by_one_error(parts: list[bytes]) -> None:
    # Whatever else it raises ends the test; a lucky message is as good as a refusal.
    with contextlib.suppress(MalformedError, UnknownKindError):
        assert decode(parts).session is not None


SAMPLE = [bytes(part) for part in encode(Upscale(5, 1, "load", ()), session="s", arrays=[np.ones((3, 4, 3), np.uint8)])]


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_a_mangled_message_decodes_to_something_consistent_or_not_at_all(data: st.DataObject) -> None:
    parts = [bytearray(part) for part in SAMPLE]
    for _ in range(data.draw(st.integers(1, 4))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        if not part:
            continue
        position = data.draw(st.integers(0, len(part) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if how == "flip":
            part[position] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del part[position:]
        else:
            part[position:position] = data.draw(st.binary(min_size=1, max_size=3))
    try:
        received = decode([bytes(part) for part in parts])
    except (MalformedError, UnknownKindError):
        return
    if isinstance(received.message, WITH_BUFFERS):
        for buffer, part in zip(received.message.bufs, received.buffers):  # noqa: B905  Python 3.9
            assert view(buffer, part).nbytes == len(part)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"\x80"],
        [msgpack.packb([])],
        [msgpack.packb({"kind": "Ping", "nonce": "1"})],
        [msgpack.packb({"kind": "Ping"})],
        [msgpack.packb({"kind": "Ping", "nonce": True})],
        [msgpack.packb({"kind": "Ping", "nonce": 2**64 - 1})],
        [msgpack.packb({"kind": "Ping", "nonce": 1, "session": 5})],
        [msgpack.packb({"kind": "Ping", "nonce": 1, "session": "x" * 65})],
        [msgpack.packb({"kind": "Log", "level": "x" * 20_000, "logger": "", "message": ""})],
        [msgpack.packb({"kind": "Progress", "id": 1, "stage": "", "done": float("nan")})],
        [msgpack.packb({"kind": "Progress", "id": 1, "stage": "", "done": float("inf")})],
        [msgpack.packb({"kind": "Hello", "id": 1, "protocol_min": [1], "protocol_max": [1, 0]})],
        [msgpack.packb({"kind": "Load", "id": 1, "key": "", "model": "", "params": {"a": [1]}})],
        [msgpack.packb({"kind": "Ping", "nonce": 1}), b"a part too many"],
        [msgpack.packb({"kind": "Ping", "nonce": 1, 5: 1})],
        [msgpack.packb({"kind": "Ping", "nonce": 1, "x": msgpack.ExtType(1, b"")}, use_bin_type=True)],
        [msgpack.packb({"kind": "Ping", "nonce": 1, "x": b"\0" * 10}, use_bin_type=True)],
        [msgpack.packb({"kind": "Ping", "nonce": 1, "x": [0] * 600})],
        [b"\x91" * 60_000],
        [msgpack.packb({"kind": "Ping", "nonce": 1}) + b"\0"],
        [msgpack.packb({"kind": "Ping", "nonce": 1})] + [b""] * MAX_PARTS,
        [b"\0" * (MAX_HEADER + 1)],
    ],
)
def test_what_is_no_message_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        decode(parts)


def buffer(**changes: Any) -> dict[str, Any]:
    return {"dtype": "uint8", "shape": [2, 2, 3], "nbytes": 12, **changes}


@pytest.mark.parametrize(
    ("bufs", "parts"),
    [
        ([], []),
        ([buffer()], []),
        ([buffer()], [b"\0" * 11]),
        ([buffer(nbytes=13)], [b"\0" * 13]),
        ([buffer(dtype="object")], [b"\0" * 12]),
        ([buffer(dtype="float64", nbytes=96)], [b"\0" * 96]),
        ([buffer(shape=[2, 2, 4], nbytes=16)], [b"\0" * 16]),
        ([buffer(shape=[12], nbytes=12)], [b"\0" * 12]),
        ([buffer(shape=[0, 2, 3], nbytes=0)], [b""]),
        ([buffer(shape=[-1, -4, 3])], [b"\0" * 12]),
        ([buffer(shape=[2**62, 2**62, 3])], [b"\0" * 12]),
        ([buffer(codec="zip")], [b"\0" * 12]),
        ([buffer(codec="deflate")], [b"\0" * 12]),
        ([buffer(codec="deflate")], [b""]),
        ([buffer(codec="deflate", dtype="float32", nbytes=48)], [b"\0" * 12]),
        ([buffer(codec="deflate", loc="shm", slot=1, gen=1)], []),
        ([buffer(loc="disk")], [b"\0" * 12]),
        ([buffer(), buffer(dtype="uint16", shape=[2, 1, 3])], [b"\0" * 12, b"\0" * 12]),
        ([buffer()] * 257, [b"\0" * 12] * 256),
        (["nothing"], [b""]),
    ],
)
def test_buffers_that_contradict_their_description_are_refused(bufs: list[Any], parts: list[bytes]) -> None:
    header = {"kind": "Upscale", "id": 1, "attempt": 0, "load_id": "l", "bufs": bufs}
    with pytest.raises(MalformedError):
        decode([msgpack.packb(header), *parts])


@pytest.mark.parametrize("kind", ["Echo", "Echoed"])
def test_only_tiles_are_packed(kind: str) -> None:
    header = {"kind": kind, "id": 1, "bufs": [buffer(codec="deflate")]}
    with pytest.raises(MalformedError):
        decode([msgpack.packb(header), b"\0" * 8])


def test_packed_tiles_survive_the_wire_beside_others() -> None:
    smooth = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3) // 3
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    parts = encode(Upscale(1, 0, "load", (), codec="deflate"), session="s", arrays=[packed(smooth), packed(noise)])
    received = decode([bytes(part) for part in parts])
    assert isinstance(received.message, Upscale)
    assert [each.codec for each in received.message.bufs] == ["deflate", "raw"]
    assert len(received.buffers[0]) < smooth.nbytes
    for tile, described, part in zip((smooth, noise), received.message.bufs, received.buffers):  # noqa: B905
        assert np.array_equal(opened(described, part), tile)


def test_seeds_are_one_per_tile_or_none() -> None:
    header = {"kind": "Upscale", "id": 1, "attempt": 0, "load_id": "l", "bufs": [buffer()], "seeds": [1, 2]}
    with pytest.raises(MalformedError):
        decode([msgpack.packb(header), b"\0" * 12])


def test_unknown_kinds_are_passed_over_unless_critical_and_unknown_keys_always() -> None:
    assert decode([msgpack.packb({"kind": "Novelty", "x": 1})]).message == Unknown("Novelty")
    with pytest.raises(UnknownKindError):
        decode([msgpack.packb({"kind": "Novelty", "critical": True})])
    assert decode([msgpack.packb({"kind": "Ping", "nonce": 1, "new": {"deep": [1]}})]).message == Ping(1)


def test_missing_keys_take_their_default() -> None:
    received = decode([msgpack.packb({"kind": "Load", "id": 1, "key": "k", "model": "m"})])
    assert received.message == KINDS["Load"](1, "k", "m")


def test_a_header_that_would_be_too_large_is_not_sent() -> None:
    with pytest.raises(MalformedError):
        encode(KINDS["Load"](1, "k", "m", files={str(n): "x" * 1000 for n in range(100)}))


def test_text_that_is_no_unicode_is_sent_with_a_mark_in_its_place() -> None:
    received = decode(encode(KINDS["Log"]("INFO", "upx", "caf\udce9.png")))
    assert received.message == KINDS["Log"]("INFO", "upx", "caf?.png")


def test_an_array_that_is_not_contiguous_is_not_sent_silently_wrong() -> None:
    with pytest.raises(TypeError):
        encode(Upscale(1, 0, "l", ()), arrays=[np.zeros((4, 4, 3), np.uint8)[:, ::2]])


def test_describing_an_array_needs_no_copy() -> None:
    array = np.zeros((4, 4, 3), np.float32)
    part = encode(TileDone(1, 0, 0, ()), arrays=[array])[1]
    array[0, 0, 0] = 1.0
    assert np.frombuffer(part, np.float32)[0] == 1.0
    assert Buffer("float32", (4, 4, 3), 192) == Buffer.from_wire(Buffer("float32", (4, 4, 3), 192).to_wire())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_both_unpackers_take_and_refuse_the_same_headers(seed: int) -> None:
    for parts in islice(mangled(seed, [*host_messages("s", "l"), *worker_messages("s")]), 5):
        part = parts[0][:MAX_HEADER]
        assert repr(_outcome(codec._unpack, part)) == repr(_outcome(codec._unpack_slowly, part))


def _outcome(unpack: Any, part: bytes) -> Any:
    try:
        return unpack(part)
    except (ValueError, TypeError, RecursionError, MalformedError, msgpack.UnpackException):
        return "refused"
