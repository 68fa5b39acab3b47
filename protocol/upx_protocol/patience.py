"""When a worker that serves a network gives up on what it computes: nobody wants it, or it takes too long.

What runs cannot be interrupted, and nobody else is served until it ends. The process can be ended, and whoever keeps
the box starts another; the tiles of other hosts are sent again by them. Pure: the time comes with each call.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Optional

from upx_protocol.actions import BatchTask, LoadTask

if TYPE_CHECKING:
    from upx_protocol.actions import Task
    from upx_protocol.sessions import Sessions
    from upx_protocol.work import Work

log = logging.getLogger("upx.worker")

#: Exit status of a worker that gave up (EX_TEMPFAIL).
GAVE_UP = 75
#: After its host has left: where a box is of use a tile takes seconds, and so does a load. Who leaves in the middle of
#: a slower one costs the next a load.
GONE_S = 30.0
#: After a cancel, or a load that nobody waits for: the host still shares with the others what it is given, its tile may
#: be one that a quicker machine has done meanwhile, and files may be fetched. A host gives a first tile as long.
UNWANTED_S = 300.0


class Patience:
    """``batch_s``: the most that a batch may take, whoever waits for it."""

    def __init__(self, sessions: Sessions, work: Work, batch_s: float) -> None:
        self._sessions, self._work, self._batch_s = sessions, work, batch_s
        self._task: Optional[Task] = None
        self._fate = ""
        self._begun = self._since = 0.0

    def lost(self, now: float) -> str:
        """Why the worker has to end, which is logged; empty while it has not."""
        why = self._verdict(now)
        if why:
            log.error("%s: this worker ends, for another to be started", why)
        return why

    def _verdict(self, now: float) -> str:
        task, fate = self._work.running, self._fate_now()
        if task is not self._task:
            self._task, self._begun, self._fate = task, now, ""
        if fate != self._fate:
            self._fate, self._since = fate, now
        if fate and now - self._since > (GONE_S if fate == "left" else UNWANTED_S):
            return f"computes for {now - self._since:.0f} s what nobody waits for ({fate})"
        if isinstance(task, BatchTask) and now - self._begun > self._batch_s:
            return f"a batch takes more than {self._batch_s:.0f} s"
        return ""

    def _fate_now(self) -> str:
        """What has become of those who wait for what is computed; empty where they still do."""
        task, named = self._work.running, self._sessions.named
        if isinstance(task, BatchTask):
            if named(task.ticket.session) is None:
                return "left"
            return "cancelled" if self._work.cancelled else ""
        if isinstance(task, LoadTask):
            waits = any(named(waiter.session) is not None for waiter in self._work.resident.waiters)
            return "" if waits else "a load"
        return ""
