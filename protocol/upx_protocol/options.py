"""What a worker process is told at its birth, as one JSON argument."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple

#: Seconds after which a silent host's session ends, on one machine.
SILENCE_S = 5.0
#: An hour: for a large picture as one tile on a CPU. Hosts give up far sooner, each by its own measure.
BATCH_S = 3_600.0


@dataclass(frozen=True)
class WorkerOptions:
    """Everything a worker knows before it binds. Paths are absolute; descriptors are inherited, -1 for none.

    ``module``: import path of the backend's adapter, e.g. ``upx_backends.span.worker``.
    ``endpoint``: ``ipc://PATH`` or ``tcp://127.0.0.1:*``. ``entry``: the registry file it writes after bind, whose
    flock it holds through ``lock_fd``. ``env_fd``, ``stage_fd``: shared locks it keeps open while it lives.
    ``tie_fd``: read end of a pipe that ends when a tied worker's host dies. ``parent``: the host's pid, compared
    with the real one before PDEATHSIG is trusted; 0 when detached. ``idle_s``: a detached worker leaves after so
    many seconds without a session, None for never. ``curve_keys``: a 0600 file with the CURVE key pair where the
    endpoint is tcp. ``identity``: the registry key, repeated in the entry.

    For a worker that serves a network: ``allowed``, the file that lists the keys of its clients; ``listen_fd``, a
    socket that listens at ``endpoint`` already and outlives the worker; ``steward_fd``, a socket to the process that
    knows this machine's files; ``box``, the name, ``ports``, those of all workers of this box, its own first;
    ``models`` that can be asked for; ``parameters`` that batches may have, each a map with the keys of
    ``terms.Parameter``, None for any; ``batch_s``, the most that a batch may take; ``silence_s``, after which a silent
    host's session ends; ``files_fd``, a socket to the process that keeps the files that hosts send, where they may.
    """

    backend: str
    module: str
    endpoint: str
    entry: str = ""
    identity: str = ""
    lock_fd: int = -1
    env_fd: int = -1
    stage_fd: int = -1
    tie_fd: int = -1
    parent: int = 0
    tied: bool = True
    idle_s: Optional[float] = None
    device: str = "cpu"
    env: str = ""
    build: str = ""
    curve_keys: str = ""
    credit_tiles: int = 4
    credit_bytes: int = 512 * 1024 * 1024
    max_bytes: int = 1024 * 1024 * 1024
    log_level: str = "INFO"
    log_json: bool = False
    allowed: str = ""
    listen_fd: int = -1
    steward_fd: int = -1
    files_fd: int = -1
    box: str = ""
    ports: Sequence[int] = ()
    models: Sequence[str] = ()
    parameters: Optional[Mapping[str, Mapping[str, Any]]] = None
    batch_s: float = BATCH_S
    silence_s: float = SILENCE_S

    @property
    def serves(self) -> bool:
        """Whether it serves hosts of other machines, which know nothing of this one's files."""
        return bool(self.allowed or self.box)

    @property
    def descriptors(self) -> Tuple[int, ...]:
        """What it inherited."""
        mine = (self.lock_fd, self.env_fd, self.stage_fd, self.tie_fd, self.listen_fd, self.steward_fd, self.files_fd)
        return tuple(fd for fd in mine if fd >= 0)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> WorkerOptions:
        """Build from ``to_json``'s line; TypeError for an unknown key."""
        options = cls(**json.loads(text))
        # JSON knows no tuples.
        lists = {name: tuple(getattr(options, name)) for name in ("ports", "models")}
        return dataclasses.replace(options, **lists)
