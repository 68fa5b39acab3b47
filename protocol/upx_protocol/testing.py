"""Peers for tests, public: a host that goes step by step, and a worker that can be told to misbehave.

Every wait has a deadline; a peer that is used as a context manager leaves no socket and no thread.
"""

from __future__ import annotations

from upx_protocol.fake_host import FakeHost
from upx_protocol.fake_worker import Conduct, FakeWorker, Tamper, garble, truncate_tiles

__all__ = ["Conduct", "FakeHost", "FakeWorker", "Tamper", "garble", "truncate_tiles"]
