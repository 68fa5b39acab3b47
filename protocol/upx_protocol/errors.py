"""The errors of the protocol package.

    ProtocolError                 the peer broke the protocol
    ├─ MalformedError                bytes that are no message: bad msgpack, missing key, wrong type, wrong size
    └─ UnknownKindError              a critical message of a kind that this version does not know
    UpscalerError                 what a backend raises; becomes ``Failed`` on the wire
    ├─ OutOfMemoryError              class "oom": the host shrinks the batch, then the tile
    ├─ BadInputError                 class "input": this tile or parameter cannot be processed, ever
    ├─ TransientError                class "transient": another worker, or this one later, may succeed
    └─ FatalError                    class "fatal": the backend cannot go on

Any other exception in a backend becomes class "fatal" for its tile, with the traceback in the log.
"""

from __future__ import annotations


class ProtocolError(Exception):
    """The peer broke the protocol."""


class MalformedError(ProtocolError):
    """Bytes that are no message."""


class UnknownKindError(ProtocolError):
    """A critical message of an unknown kind."""


class UpscalerError(Exception):
    """What a backend raises on purpose. ``failure`` is the wire's class."""

    failure = "fatal"
    retryable = False


class OutOfMemoryError(UpscalerError):
    """The device's memory does not suffice for this batch."""

    failure = "oom"
    retryable = True


class BadInputError(UpscalerError):
    """This tile, or a parameter, cannot be processed."""

    failure = "input"


class TransientError(UpscalerError):
    """Another try may succeed."""

    failure = "transient"
    retryable = True


class FatalError(UpscalerError):
    """The backend cannot go on."""
