"""Messages to parts and back: ``[header: msgpack map][one raw buffer per inline array]…``.

Nothing is trusted: the header is capped before it is parsed, nesting and sizes are capped while it is, and the
buffers are compared with what the header says of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Sequence, Tuple, Union, cast

import msgpack
from msgpack import fallback

from upx_protocol.arrays import PACKS, Bytes, as_buffer, check_tiles, describe
from upx_protocol.errors import MalformedError, UnknownKindError
from upx_protocol.files import Chunk, check_chunk
from upx_protocol.messages import HANDSHAKES, KINDS, Buffer, Echo, Echoed, Message, TileDone, Unknown, Upscale
from upx_protocol.packing import Packed
from upx_protocol.version import HANDSHAKE, NEWEST

if TYPE_CHECKING:
    from upx_protocol.packing import Piece

MAX_HEADER = 65_536
MAX_PARTS = 257
MAX_SESSION = 64
WITH_BUFFERS = (Upscale, TileDone, Echo, Echoed, Chunk)

# 1 MB of empty lists would become 65 MB of objects.
_LIMITS = {"strict_map_key": True, "max_ext_len": 0, "max_bin_len": 0, "max_array_len": 512, "max_map_len": 512}

# msgpack ships no types.
_packb = cast("Callable[..., bytes]", msgpack.packb)
_unpackb = cast("Callable[..., Any]", msgpack.unpackb)
_Unpacker = cast("Callable[..., Any]", fallback.Unpacker)
# Before 1.2 the C unpacker loses what it had built when it fails: 180 bytes for each hostile message.
SAFE_IN_C = msgpack.version >= (1, 2)


@dataclass(frozen=True)
class Received:
    """A decoded message, the session it names (empty in a handshake) and its inline buffers."""

    message: Union[Message, Unknown]
    session: str
    buffers: Tuple[Bytes, ...] = ()


def encode(message: Message, *, session: str = "", arrays: Sequence[Piece] = ()) -> List[Bytes]:
    """The parts of a message. ``arrays`` (C order, or packed) follow the header, described in its ``bufs``.

    The arrays' memory is referenced, not copied: with ``copy=False`` it must not be reused before the peer has it.
    MalformedError when the header would exceed 64 KiB.
    """
    header = message.to_wire()
    header["v"] = HANDSHAKE if isinstance(message, HANDSHAKES) else NEWEST.major
    header["kind"] = message.kind()
    if session and "session" not in header:
        header["session"] = session
    if arrays:
        header["bufs"] = [(each.buffer if isinstance(each, Packed) else describe(each)).to_wire() for each in arrays]
    # A file name or a log line may hold what is no Unicode; saying it with a ? beats not saying it.
    packed: bytes = _packb(header, unicode_errors="replace")
    if len(packed) > MAX_HEADER:
        raise MalformedError(f"header of {len(packed)} bytes, at most {MAX_HEADER}")
    return [packed, *(each.part if isinstance(each, Packed) else as_buffer(each) for each in arrays)]


def decode(parts: Sequence[Bytes]) -> Received:
    """Check and build what came in; MalformedError or UnknownKindError for what is no message."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise MalformedError(f"{len(parts)} parts")
    header = _header(parts[0])
    kind, session = header.get("kind"), header.get("session", "")
    if type(kind) is not str or type(session) is not str or len(session) > MAX_SESSION:
        raise MalformedError("kind or session is no text")
    cls = KINDS.get(kind)
    if cls is None:
        if header.get("critical") is True:
            raise UnknownKindError(kind[:64])
        return Received(Unknown(kind[:64]), session)
    message = cls.from_wire(header)
    buffers = tuple(parts[1:])
    _check_buffers(message, buffers)
    return Received(message, session, buffers)


def _header(part: Bytes) -> Dict[str, Any]:
    if len(part) > MAX_HEADER:
        raise MalformedError(f"header of {len(part)} bytes, at most {MAX_HEADER}")
    try:
        header = _unpack(part) if SAFE_IN_C else _unpack_slowly(part)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedError("header is no msgpack map") from error
    if type(header) is not dict:
        raise MalformedError("header is no msgpack map")
    return cast("Dict[str, Any]", header)


def _unpack(part: Bytes) -> Any:
    return _unpackb(part, ext_hook=_no_extension, **_LIMITS)


def _unpack_slowly(part: Bytes) -> Any:
    """The same in Python: 20 to 40 microseconds instead of 2."""
    unpacker = _Unpacker(max_buffer_size=MAX_HEADER, ext_hook=_no_extension, **_LIMITS)
    unpacker.feed(part)
    header = unpacker.unpack()
    if unpacker.tell() != len(part):
        raise MalformedError("something follows the header's map")
    return header


def _no_extension(code: int, _data: bytes) -> Any:
    raise MalformedError(f"extension type {code}")


def _check_buffers(message: Message, buffers: Tuple[Bytes, ...]) -> None:
    described: Tuple[Buffer, ...] = message.bufs if isinstance(message, WITH_BUFFERS) else ()
    inline = [buffer for buffer in described if buffer.loc == "inline"]
    if len(inline) != len(buffers):
        raise MalformedError(f"{len(buffers)} buffers, {len(inline)} described")
    if isinstance(message, Upscale):
        check_tiles(described)
        _check_slots(message)
        if len(message.seeds) not in (0, len(described)):
            raise MalformedError("not one seed per tile")
    if isinstance(message, Chunk):
        check_chunk(described)
    if isinstance(message, (TileDone, Echo, Echoed)):
        check_tiles(described)
        if len(described) != 1:
            raise MalformedError("more than one buffer in an answer")
    for buffer, part in zip(inline, buffers):  # noqa: B905  strict is Python 3.10's; the lengths were compared
        if not (0 < len(part) < buffer.nbytes if buffer.codec == PACKS else len(part) == buffer.nbytes):
            raise MalformedError(f"buffer of {len(part)} bytes, {buffer.nbytes} described")
        if buffer.codec == PACKS and not isinstance(message, (Upscale, TileDone)):
            raise MalformedError("only tiles are packed")


def _check_slots(message: Upscale) -> None:
    """A batch lies in a ring as a whole, tiles and results, or travels as a whole."""
    bufs, outs = message.bufs, message.outs
    shared = sum(buffer.loc == "shm" for buffer in (*bufs, *outs))
    if not shared and not outs:
        return
    if shared != len(bufs) + len(outs) or len(bufs) != len(outs):
        raise MalformedError("only a part of the batch lies in a ring")
    check_tiles(outs)
