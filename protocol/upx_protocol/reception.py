"""Where a host that says hello is let in or turned away: version, identity, room. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from upx_protocol.files import FILES
from upx_protocol.messages import Hello, Reject, Welcome
from upx_protocol.packing import PACKING
from upx_protocol.ring import SHM
from upx_protocol.sessions import MAX_OF_CLIENT
from upx_protocol.version import NEWEST, OLDEST, highest_common

if TYPE_CHECKING:
    from upx_protocol.options import WorkerOptions
    from upx_protocol.sessions import Session, Sessions


class Reception:
    """``owner``: the key that alone may end the worker and is never one too many; empty where all hosts are equal."""

    def __init__(self, options: WorkerOptions, sessions: Sessions, *, pid: int, owner: str = "") -> None:
        self.owner = owner
        self._options, self._sessions, self._pid = options, sessions, pid

    def owns(self, session: Session) -> bool:
        """Whether a host may end the worker."""
        return not self.owner or session.client == self.owner

    def refusal(self, hello: Hello, client: str, *, leaving: bool) -> Optional[Reject]:
        """Why a host cannot have a session; None where it can."""
        if highest_common(hello.protocol_min, hello.protocol_max) is None:
            ours = f"this worker speaks {OLDEST} to {NEWEST}, the host {hello.protocol_min} to {hello.protocol_max}"
            return _refuse(hello, "version", ours)
        if leaving:
            return _refuse(hello, "leaving", "the worker is leaving")
        for name, theirs, ours in (
            ("environment", hello.env, self._options.env),
            ("build", hello.build, self._options.build),
        ):
            if theirs and theirs != ours:
                return _refuse(hello, "identity", f"another {name}: {ours[:64]}")
        return _refuse(hello, "busy", "too many hosts") if self._crowded(client) else None

    def _crowded(self, client: str) -> bool:
        guest = bool(client) and client != self.owner
        return self._sessions.full or (guest and len(self._sessions.of_client(client)) >= MAX_OF_CLIENT)

    def welcome(self, hello: Hello, session: Session, load_key: str, *, near: bool) -> Welcome:
        """The answer to a host that was let in; ``near``: it may share memory with this worker."""
        options = self._options
        able = (*((SHM,) if near else ()), *((FILES,) if options.files_fd >= 0 else ()), PACKING)
        return Welcome(
            id=hello.id,
            session=session.name,
            protocol=highest_common(hello.protocol_min, hello.protocol_max) or NEWEST,
            backend=options.backend,
            features=tuple(name for name in hello.features if name in able),
            env=options.env,
            build=options.build,
            pid=self._pid,
            credit_tiles=session.credit_tiles,
            credit_bytes=session.credit_bytes,
            max_bytes=options.max_bytes,
            load_key=load_key,
            box=options.box,
            ports=tuple(options.ports),
        )


def _refuse(hello: Hello, reason: str, message: str) -> Reject:
    return Reject(hello.id, reason, message, OLDEST, NEWEST)
