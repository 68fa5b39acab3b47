"""The end of a worker whose socket nobody holds any more: nobody could talk to it."""

from __future__ import annotations

import os
import sys
import traceback

CRASHED = 70


def crash() -> None:
    """End the process with the traceback of the exception that is being handled."""
    traceback.print_exc(file=sys.stderr)
    sys.stderr.flush()
    os._exit(CRASHED)
