"""Runs the ``convert`` backend on files that may be hostile, and tells what each of them made this process do.

`convert_guarded.py PATH... <JOBS.json`: PATHs go in front of sys.path; JOBS is a list of {source, order, result}. The
standard library's unpickler is made to raise. For each job one JSON line: ``error`` and its ``kind``, what was
seen to be ``done`` meanwhile, ``progress``, and ``memory``, the most that was held beside mapped files.
"""

from __future__ import annotations

import _pickle
import io
import json
import pickle
import sys
from pathlib import Path

WATCHED = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "marshal.", "exec", "compile", "import")
HARMLESS = ("os.listdir", "os.scandir", "os.rename", "os.remove", "pickle.find_class")


def refuse(*_: object, **__: object) -> None:
    raise SystemExit("the standard library's unpickler was used")


sys.path[:0] = sys.argv[1:]
from upx_backends.convert.worker import Backend  # noqa: E402
from upx_protocol.errors import UpscalerError  # noqa: E402
from upx_protocol.upscaler import LoadRequest  # noqa: E402

# After the import: torch derives classes from these, and uses none of them here.
for module in (pickle, _pickle):
    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        setattr(module, name, refuse)

seen: list[str] = []
watching = False


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if not watching:
        return
    if event == "open":
        mode = str(arguments[1] or "r")
        if set(mode) & set("wax+"):
            seen.append(f"open {arguments[0]}")
    elif event == "pickle.find_class" or (event.startswith(WATCHED) and event not in HARMLESS):
        seen.append(f"{event} {arguments[:1]}"[:200])


def anonymous() -> int:
    """Bytes that this process holds, files that it has mapped left out."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def run(job: dict[str, object]) -> dict[str, object]:
    global watching
    order = Path(f"{job['result']}.order")
    order.write_text(json.dumps(job["order"]), encoding="utf-8")
    progress: list[tuple[str, float, float]] = []
    memory = [anonymous()]

    def report(stage: str, done: float, total: float) -> None:
        progress.append((stage, done, total))
        memory.append(anonymous())

    params = {"order": str(order), "result": str(job["result"])}
    request = LoadRequest("convert-torch", {"source": str(job["source"])}, params=params, progress=report)
    seen.clear()
    told: dict[str, object] = {"error": "", "kind": ""}
    watching = True
    try:
        Backend().load(request)
    except UpscalerError as error:
        told = {"error": str(error), "kind": error.failure}
    except Exception as error:  # noqa: BLE001  what it is, is what the test wants to know
        told = {"error": repr(error), "kind": "unexpected"}
    finally:
        watching = False
    return {**told, "done": list(seen), "progress": progress, "memory": max(memory) - memory[0]}


sys.addaudithook(watch)
jobs = json.load(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8"))
for each in jobs:
    print(json.dumps(run(each)), flush=True)
