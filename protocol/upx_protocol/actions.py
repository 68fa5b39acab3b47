"""What passes between the three parts of a worker: actions of the service, tasks and outcomes of the compute thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Tuple, Union

from upx_protocol.errors import OutOfMemoryError, UpscalerError

if TYPE_CHECKING:
    from upx_protocol.arrays import Bytes
    from upx_protocol.messages import Load, Message, Wanted
    from upx_protocol.packing import Piece
    from upx_protocol.sessions import Ticket
    from upx_protocol.upscaler import DeviceInfo, LoadResult


@dataclass(frozen=True)
class Send:
    """Send a message to a peer. One that is ``lossy`` may be dropped when the peer does not read."""

    peer: bytes
    message: Message
    session: str = ""
    arrays: Tuple[Piece, ...] = ()
    lossy: bool = False


@dataclass(frozen=True)
class Retire:
    """Stop being found: remove the registry entry."""


@dataclass(frozen=True)
class Leave:
    """End the process with this exit status once what was said has been sent."""

    status: int
    reason: str


@dataclass(frozen=True)
class LoadTask:
    """Make a model resident under ``load_id``."""

    request: Load
    load_id: str


@dataclass(frozen=True)
class UnloadTask:
    """Give the model's memory back, for the ``Unload`` of that id."""

    id: int
    session: str


@dataclass(frozen=True)
class BatchTask:
    """Turn a ticket's tiles into tiles."""

    ticket: Ticket


Task = Union[LoadTask, UnloadTask, BatchTask]


@dataclass(frozen=True)
class Run:
    """Hand a task to the compute thread, which is free."""

    task: Task


@dataclass(frozen=True)
class KeepTask:
    """For the process that keeps this machine's files: one that a host sends, named by ``number``.

    ``what``: "begin" (with digest, size in bytes and the host's key), "chunk" (with its bytes) or "end", which means
    that no more of it comes and is not answered.
    """

    number: int
    what: str
    sha256: str = ""
    size: int = 0
    client: str = ""
    data: Bytes = b""


@dataclass(frozen=True)
class Keep:
    """Hand a task to the thread that speaks with that process."""

    task: KeepTask


Action = Union[Send, Retire, Leave, Run, Keep]


#: How torch says it in a RuntimeError: for the CPU, for MPS, for CUDA, for its libraries.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Failure:
    """Why a task failed, in the wire's classes; ``final`` when the backend cannot go on."""

    failure: str
    retryable: bool
    message: str
    final: bool = False

    @classmethod
    def of(cls, error: BaseException, *, final: bool = False) -> Failure:
        """The wire's class of an exception. Frameworks tell of no memory in errors of that name, or in words alone."""
        text = f"{type(error).__name__}: {error}"[:1000]
        if isinstance(error, UpscalerError):
            return cls(error.failure, error.retryable, str(error)[:1000] or text, final)
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if named or (isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)):
            return cls(OutOfMemoryError.failure, OutOfMemoryError.retryable, text)
        return cls("fatal", retryable=False, message=text, final=final)


@dataclass(frozen=True)
class Imported:
    """The backend is imported."""

    device: DeviceInfo


@dataclass(frozen=True)
class ImportFailed:
    """The backend cannot be imported."""

    failure: Failure


@dataclass(frozen=True)
class Advanced:
    """A load has come so far."""

    stage: str
    done: float
    total: float


@dataclass(frozen=True)
class LoadEnded:
    """A load ended, well where there is a ``result``. ``weights``: SHA-256 of what was loaded, where that is known.

    ``wanted``: with a ``failure``, the files for want of which it failed, where the host may send them.
    """

    result: Optional[LoadResult] = None
    failure: Optional[Failure] = None
    seconds: float = 0.0
    weights: str = ""
    wanted: Tuple[Wanted, ...] = ()


@dataclass(frozen=True)
class UnloadEnded:
    """The memory is given back."""

    failure: Optional[Failure] = None


@dataclass(frozen=True)
class TilePlaced:
    """A tile's result lies in its slot of the ring, as those before it do. ``seconds``: its share of the computing."""

    index: int
    seconds: float


@dataclass(frozen=True)
class BatchEnded:
    """A batch ended, well where there is no ``failure``: one array per tile, in the dtype asked for.

    No array for a batch in the ring, whose results were placed one by one.
    """

    results: Tuple[Piece, ...] = ()
    failure: Optional[Failure] = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Logged:
    """A log record for the hosts."""

    level: str
    logger: str
    message: str
    time: float


@dataclass(frozen=True)
class Kept:
    """What became of a ``KeepTask``: the file's first ``offset`` bytes are kept, or why no more of it is.

    ``later``: somebody else brings the file, and is so far.
    """

    number: int
    offset: int = 0
    later: bool = False
    failure: Optional[Failure] = None


Outcome = Union[Imported, ImportFailed, Advanced, LoadEnded, UnloadEnded, TilePlaced, BatchEnded, Logged, Kept]
