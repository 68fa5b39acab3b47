"""What a job may leave on both sides: nothing, within the time that a box takes to forget a host without a goodbye."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from _far_boxes import POLL_S, START_S, Holdings, awaited

from upx.serving.worker import MOST_BACKOFF_S, SILENCE_S
from upx_protocol import heap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _far_boxes import FarBox
    from _far_client import Client

# A worker that died may be left alone for so long by its box, and then has to start.
BACK_S = MOST_BACKOFF_S + START_S
# A session ends by silence; one that a stopped worker finds when it goes on, counts from there.
FORGOTTEN_S = SILENCE_S + 5.0
# What processes may hold more than after the first job: connections that are closing, and what a worker keeps.
MORE_DESCRIPTORS, MORE_BYTES = 6, heap.KEPT


class Leftovers:
    """Compares with what the boxes held when ``learn`` was called. Every look returns what is wrong."""

    def __init__(self, client: Client, boxes: Sequence[FarBox]) -> None:
        self._client, self._boxes = client, boxes
        self._usual: dict[str, dict[str, Holdings]] = {}

    def learn(self) -> None:
        """What the boxes hold now is what they may hold, once somebody has asked for their figures."""
        for box in self._boxes:
            box.metric("upx_worker_up")
        self._usual = {box.name: box.holdings() for box in self._boxes}

    def settled(self) -> str:
        """Wait until all is as if nobody had been there."""
        for box in self._boxes:
            awaited(lambda box=box: box.entry, BACK_S, f"{box.name} serves again")
        until = time.monotonic() + FORGOTTEN_S
        while (left := self._left()) and time.monotonic() < until:
            time.sleep(2 * POLL_S)
        return left

    def _left(self) -> str:
        for box in self._boxes:
            if box.hosts or box.computing:
                return f"{box.name} has {box.hosts} sessions and {'computes' if box.computing else 'rests'}"
            if found := box.strays() or self._grown(box):
                return found
        return self._client.left()

    def _grown(self, box: FarBox) -> str:
        try:
            now = box.holdings()
        except (OSError, KeyError) as error:
            return f"{box.name} comes or goes: {error!r}"
        for name, usual in self._usual.get(box.name, {}).items():
            if now[name].descriptors > usual.descriptors + MORE_DESCRIPTORS:
                return f"the {name} of {box.name} has {now[name].descriptors} descriptors, {usual.descriptors} at first"
            if now[name].resident > usual.resident + MORE_BYTES:
                return f"the {name} of {box.name} holds {(now[name].resident - usual.resident) >> 20} MiB more"
        return ""

    def told(self) -> str:
        """What boxes say of themselves to those who ask: commands, Prometheus, and a host for its tiles."""
        names = [box.name for box in self._boxes]
        code, out, err = self._client.upx("ps", "--on", ",".join(names), "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        if code or [(row["state"], row["hosts"]) for row in rows] != [("idle", 0)] * len(names):
            return f"upx ps ended with {code}: {out}{err}"
        for box in self._boxes:
            code, out, err = self._client.upx("worker", "test", box.name)
            if code:
                return f"upx worker test ended with {code}: {out}{err}"
            pong = self._client.visit(box).pong
            # The visitor is the one host.
            if pong.hosts != 1 or pong.queued:
                return f"{box.name} has {pong.hosts} hosts and {pong.queued} tiles"
            awaited(lambda box=box: not box.hosts, FORGOTTEN_S, f"{box.name} has no hosts")
            if (box.metric("upx_worker_up"), box.metric("upx_worker_hosts")) != (1, 0):
                return f"the figures of {box.name} are wrong"
        return ""
