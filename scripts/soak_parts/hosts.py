"""Hosts killed with SIGKILL in the middle of a job: tied workers go with them, detached ones serve the next command.

python scripts/soak_parts/hosts.py --count 10 --seed 1
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _cases import main

if TYPE_CHECKING:
    import random

    from upx.config import Settings

HOST = """
import sys, numpy as np, json
from upx.config import Settings
from upx.host import Host
from upx.jobs import JobOptions
from upx.routes import Request
from upx.workers.events import WorkerAdopted, WorkerStarting
def tell(event):
    if isinstance(event, (WorkerAdopted, WorkerStarting)):
        print(json.dumps([type(event).__name__, event.pid]), flush=True)
keep = json.loads(sys.argv[1])
with Host(Settings.from_env(), tell) as host:
    session = host.open(Request(backend="nearest", scale=2, workers=1, keep_alive=keep, params={"delay": 0.05}))
    array = np.full((200, 200, 3), 9, np.uint8)
    count = lambda p: print(json.dumps(["tiles", p.tiles_done]), flush=True)
    result = session.run(array, None, JobOptions(tile=64), on_progress=count)
    assert (result.output == 9).all()
    print(json.dumps(["done", 0]), flush=True)
"""


def host_process(keep: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", HOST, json.dumps(keep)], stdout=subprocess.PIPE, text=True)


def killed_host(keep: float) -> int:
    """Start a host, kill it with SIGKILL in the middle of a job; the pid of its worker."""
    host = host_process(keep)
    pid = 0
    for line in host.stdout or ():
        what, number = json.loads(line)
        pid = pid if what == "tiles" else number
        if what == "tiles" and number >= 2:
            break
    host.kill()
    host.wait()
    if host.stdout:
        host.stdout.close()
    return pid


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def tied_host(settings: Settings, rng: random.Random) -> str:
    del settings, rng
    pid = killed_host(0)
    deadline = time.monotonic() + 1.0
    while alive(pid):
        if time.monotonic() > deadline:
            return "the tied worker outlived its host by more than a second"
        time.sleep(0.01)
    return ""


def detached_host(settings: Settings, rng: random.Random) -> str:
    del settings, rng
    pid = killed_host(3)
    with host_process(3) as host:
        lines = [json.loads(line) for line in host.stdout or ()]
    if ["WorkerAdopted", pid] not in lines or lines[-1] != ["done", 0]:
        return f"the detached worker did not serve the next command: {lines[:2]} {lines[-1:]}"
    deadline = time.monotonic() + 15
    while alive(pid):
        if time.monotonic() > deadline:
            return "the detached worker never left"
        time.sleep(0.05)
    return ""


if __name__ == "__main__":
    sys.exit(main({"tied-host": tied_host, "detached-host": detached_host}, __doc__.splitlines()[0]))
