"""``upx doctor``: check this machine, the environments and the manifests."""

from __future__ import annotations

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, QuietFlag, VerboseFlag
from upx.errors import NotReadyError

app = verb_app()
EXAMPLES = """
upx doctor
upx doctor --json | jq 'select(.status == "fail")'
"""


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def doctor(json: JsonFlag = False, quiet: QuietFlag = False, verbose: VerboseFlag = False) -> int:
    """Check this machine, every file of every environment, and the manifests.

    Each line is ok, warn or fail, the last two with the next step. Exit code 5 when something fails.
    """
    from upx.cli._checks import run_checks

    console = Console(as_json=json, quiet=quiet, verbose=verbose)
    failed = False
    with _host.make_host() as host:
        for check in run_checks(host):
            failed = failed or check.status == "fail"
            if not quiet or check.status != "ok":
                console.results(check)
    return NotReadyError.exit_code if failed else 0
