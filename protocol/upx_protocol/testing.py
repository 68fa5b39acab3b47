"""Peers for tests, public: a host that goes step by step, and a worker that can be told to misbehave.

``mangled`` makes endless hostile input out of good messages, repeatably. Every wait has a deadline; a peer that
is used as a context manager leaves no socket and no thread.
"""

from __future__ import annotations

from upx_protocol.fake_host import FakeHost
from upx_protocol.fake_worker import Conduct, FakeWorker, Tamper, garble, truncate_tiles
from upx_protocol.mangle import host_messages, mangled, worker_messages

__all__ = [
    "Conduct",
    "FakeHost",
    "FakeWorker",
    "Tamper",
    "garble",
    "host_messages",
    "mangled",
    "truncate_tiles",
    "worker_messages",
]
