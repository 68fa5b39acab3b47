"""How a worker is: what it has done since its birth, and the ``Pong`` that tells. Pure: the time comes with each call.

Whoever asks without a session only looks: it is no host, keeps no idle worker alive, and takes no credit from anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional

from upx_protocol.messages import Ping, Pong

if TYPE_CHECKING:
    from upx_protocol.messages import Ready
    from upx_protocol.sessions import Sessions
    from upx_protocol.work import Work

#: A name is shown, and a header is small.
LONGEST_NAME = 200


@dataclass(frozen=True)
class Status:
    """What the registry entry shows of a worker's doings."""

    model: str = ""
    hosts: int = 0
    busy: bool = False


class Pulse:
    """``memory`` returns the resident set in bytes; ``now`` is the worker's birth."""

    def __init__(self, sessions: Sessions, work: Work, memory: Callable[[], int], now: float) -> None:
        self._sessions, self._work, self._memory = sessions, work, memory
        self._born = self._noticed = now
        self._busy = 0.0
        self._computing = False

    def notice(self, now: float) -> None:
        """Something has happened: time until now counts as what it was, from here on as what it is."""
        if self._computing:
            self._busy += now - self._noticed
        self._noticed, self._computing = now, self._work.computing is not None

    def pong(self, ping: Ping, ready: Optional[Ready], now: float) -> Pong:
        """The answer to a ``Ping``; ``ready``: what the backend said of its device, once it is imported."""
        self.notice(now)
        work, device = self._work, self._work.resident.loaded or ready
        return Pong(
            nonce=ping.nonce,
            queued=work.queued,
            hosts=len(self._sessions),
            memory=self._memory(),
            tiles_done=work.tiles_done,
            pixels_done=work.pixels_done,
            busy_s=self._busy,
            age_s=now - self._born,
            model=work.resident.model[:LONGEST_NAME],
            device=device.device[:LONGEST_NAME] if device is not None else "",
            device_name=device.device_name[:LONGEST_NAME] if device is not None else "",
        )
