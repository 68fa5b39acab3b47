"""The first code of a worker process: tie it to its host, put the staged code first, serve.

Copied to the top of a stage and run as ``PYTHON -I STAGE/boot.py OPTIONS``. Nothing but the standard library is
imported before the stage is on ``sys.path``.
"""

import faulthandler
import json
import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_ORPHANED = 75


def tie(parent: int) -> None:
    """Die with the parent; exit at once when it was gone before the request took hold. Linux only."""
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_ORPHANED)


def main(text: str) -> int:
    """Serve until told otherwise; the exit status."""
    tie(int(json.loads(text).get("parent", 0)))
    faulthandler.enable()
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  pathlib is 10 ms late
    from upx_protocol.options import WorkerOptions
    from upx_protocol.worker import serve

    return serve(WorkerOptions.from_json(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
