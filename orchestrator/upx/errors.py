"""The errors that upx raises, all below one root.

    UpxError                         1  unexpected
    ├─ UsageError                    2  the request itself is wrong
    │  ├─ UnknownBackendError           no backend, model or alias of that name
    │  ├─ UnsupportedScaleError         the model has another scale
    │  ├─ ParameterError                unknown parameter, or a value out of its range
    │  ├─ ManifestError                 a backend.toml that cannot be used
    │  └─ OutputPathError               the output cannot be written where it was asked for
    ├─ InputError                    4  one input cannot be processed (3 when others could)
    │  ├─ UnreadablePictureError        not a picture, truncated, no permission, empty
    │  ├─ UnsupportedPictureError       a picture of a kind that is not handled
    │  └─ PictureTooLargeError          a decompression bomb, or too large for the output format
    ├─ OutputError                   4  writing failed: disk full, read-only
    │  └─ OutputExistsError             something took the output's name meanwhile
    ├─ NotReadyError                 5  the backend or model is not ready
    │  ├─ EnvBuildError                 the environment could not be built
    │  │  ├─ HashMismatchError          a package differs from the lock
    │  │  ├─ NoSuchVersionError         the lock cannot be satisfied here
    │  │  ├─ NetworkError               an index cannot be reached
    │  │  ├─ DiskFullError              no space left
    │  │  └─ PythonMissingError         no interpreter of the version needed
    │  ├─ EnvDamagedError               an installed file is missing or altered
    │  └─ WeightsError                  weights missing or altered
    │     ├─ LicenceError               their licence was not accepted yet
    │     ├─ FetchError                 they cannot be fetched: network, server, wrong bytes
    │     │  └─ AccessError             the publisher wants to be asked first, or knows no such token
    │     ├─ StoreFullError             no space left for them
    │     └─ UnusableWeightsError       a file that is no weights, not these, not all of them, or not safe
    ├─ OutOfMemoryError              6  out of memory after every fallback         (wire: oom)
    ├─ WorkerError                   7  a worker cannot be reached or started
    │  ├─ WorkerStartError              it died before it was ready
    │  ├─ WorkerLostError               it died or hung, and no other could take over (wire: transient)
    │  ├─ WorkerBusyError               another host holds it
    │  └─ ProtocolVersionError          host and worker share no protocol version  (wire: version)
    ├─ ModelError                    4  the model failed on this tile             (wire: fatal)
    │  ├─ PoisonTileError               a tile that killed two workers
    │  └─ TileRefusedError              the worker refused the tile's content      (wire: input)
    └─ CancelledError              130  cancelled by the caller or by Ctrl-C

Every class carries the command's exit code, its class on the wire where it has one, and every instance
a ``hint``: the user's next step.
"""

from __future__ import annotations

from typing import ClassVar


class UpxError(Exception):
    """Root of everything that upx raises on purpose.

    ``str(error)`` is one line that says what happened; ``hint`` is one line that says what to do next.
    """

    exit_code: ClassVar[int] = 1
    wire_code: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def code(self) -> str:
        """Stable name for machines: the class's name without ``Error``, e.g. ``HashMismatch``."""
        return type(self).__name__.removesuffix("Error")


class UsageError(UpxError):
    """The request itself is wrong."""

    exit_code = 2


class UnknownBackendError(UsageError):
    """No backend, model or alias has that name."""


class UnsupportedScaleError(UsageError):
    """The model has another scale."""


class ParameterError(UsageError):
    """An unknown parameter, or a value outside of its range."""


class ManifestError(UsageError):
    """A ``backend.toml`` that cannot be used."""


class OutputPathError(UsageError):
    """The output cannot be written where it was asked for; found before any work."""


class InputError(UpxError):
    """One input cannot be processed."""

    exit_code = 4


class UnreadablePictureError(InputError):
    """Not a picture, truncated, empty, or without permission."""


class UnsupportedPictureError(InputError):
    """A picture of a kind that is not handled."""


class PictureTooLargeError(InputError):
    """A decompression bomb, or larger than the output format can hold."""


class OutputError(UpxError):
    """Writing the output failed; nothing half-written is left."""

    exit_code = 4


class OutputExistsError(OutputError):
    """Something has the output's name by now, and must not be overwritten."""


class NotReadyError(UpxError):
    """The backend or model is not ready."""

    exit_code = 5


class EnvBuildError(NotReadyError):
    """An environment could not be built.

    ``package`` is the one at fault (``name==version``), ``log`` the builder's last lines; both may be empty.
    """

    def __init__(self, message: str, *, hint: str = "", package: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.package = package
        self.log = log


class HashMismatchError(EnvBuildError):
    """A package's bytes differ from the lock's hash."""


class NoSuchVersionError(EnvBuildError):
    """The lock cannot be satisfied on this machine."""


class NetworkError(EnvBuildError):
    """The package index cannot be reached."""


class DiskFullError(EnvBuildError):
    """No space is left for the environment: more than ``needed`` bytes are, and ``free`` were free after it."""

    def __init__(
        self, message: str, *, hint: str = "", package: str = "", log: str = "", needed: int = 0, free: int = 0
    ) -> None:
        super().__init__(message, hint=hint, package=package, log=log)
        self.needed = needed
        self.free = free


class PythonMissingError(EnvBuildError):
    """No interpreter of the version that the environment needs."""


class EnvDamagedError(NotReadyError):
    """An installed file is missing or altered."""


class WeightsError(NotReadyError):
    """Weights are missing or altered."""


class LicenceError(WeightsError):
    """Weights are behind a licence that was not accepted yet."""


class FetchError(WeightsError):
    """Weights cannot be fetched: no network, no such file, a server that fails or sends something else."""


class AccessError(FetchError):
    """Weights are given out only to those who asked for access, and this token has none."""


class StoreFullError(WeightsError):
    """No space is left for weights."""


class UnusableWeightsError(WeightsError):
    """A file that holds no weights, those of another model, not all of them, or something that could do harm."""


class OutOfMemoryError(UpxError):
    """Out of memory after every fallback."""

    exit_code = 6
    wire_code = "oom"


class WorkerError(UpxError):
    """A worker cannot be started or reached."""

    exit_code = 7


class WorkerStartError(WorkerError):
    """A worker died or fell silent before it was ready."""


class WorkerLostError(WorkerError):
    """A worker died or hung, and no other could take its tiles over."""

    wire_code = "transient"


class WorkerBusyError(WorkerError):
    """Another host holds the worker."""


class ProtocolVersionError(WorkerError):
    """Host and worker share no protocol version."""

    wire_code = "version"


class ModelError(UpxError):
    """The model failed on this input."""

    exit_code = 4
    wire_code = "fatal"


class PoisonTileError(ModelError):
    """A tile that killed two workers."""

    wire_code = None


class TileRefusedError(ModelError):
    """The worker refused the tile's content."""

    wire_code = "input"


class CancelledError(UpxError):
    """Cancelled by the caller or by Ctrl-C."""

    exit_code = 130
