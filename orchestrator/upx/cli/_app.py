"""The command: its table of verbs, loaded when they are named, and the way every failure ends.

``run`` turns what a verb returns or raises into an exit code and one line with its next step.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # the pinned typer carries click inside
from typer.main import get_command

from upx.cli._console import Console
from upx.cli._help import HELP_NAMES, VerbGroup
from upx.cli._options import REPORTING, JsonFlag
from upx.errors import CancelledError, UpxError, UsageError

INTERRUPTED = 130
EXAMPLES = """
upx up photo.jpg                    photo_4x_span-x4.jpg, beside it
upx up photos/ -o big/ -j 2         a folder, its tree kept
upx backends                        what there is to choose from
upx models pull realesrgan          fetch weights ahead of their use
upx doctor                          is everything all right?
"""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: its module is loaded when it is named, so that the others cost nothing."""

    name: str
    help: str
    group: str


VERBS = (
    Verb("up", "Enlarge pictures, folders or standard input.", "Pictures"),
    Verb("backends", "List the backends, or all about one.", "Backends"),
    Verb("setup", "Build or mend a backend's environment ahead of its use.", "Backends"),
    Verb("models", "List, fetch, check, import and remove weights.", "Backends"),
    Verb("env", "List environments, remove what nobody needs.", "Backends"),
    Verb("warm", "Load a model now, for the commands to come.", "Workers"),
    Verb("ps", "List the workers that are running.", "Workers"),
    Verb("top", "Watch the workers at work, here and on boxes.", "Workers"),
    Verb("stop", "End workers.", "Workers"),
    Verb("worker", "Serve this machine to others; keep the boxes that serve you.", "Other machines"),
    Verb("key", "Show, make, allow and revoke the keys of machines.", "Other machines"),
    Verb("doctor", "Check this machine, the environments and the manifests.", "This machine"),
    Verb("bench", "Measure how fast this machine is.", "This machine"),
)


class Verbs(VerbGroup):
    """The top of the command; its help is written from the table above, without loading a verb."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base class's signature
        """Name the verbs."""
        return [verb.name for verb in VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # the base class's signature
        """Load the verb of that name; None when there is none."""
        for verb in VERBS:
            if verb.name == cmd_name:
                command = get_command(importlib.import_module(f"upx.cli.{cmd_name}").app)
                command.name = cmd_name
                return command
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; UsageError with what was meant when there is none."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            raise UsageError(f"there is no verb {name!r}", hint=_meant(name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # the base class's signature
        """Print the verbs in their groups."""
        for group in dict.fromkeys(verb.group for verb in VERBS):
            with formatter.section(group):
                formatter.write_dl([(f"{verb.name:<10}", verb.help) for verb in VERBS if verb.group == group])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Offer the verbs and options; typer's own would load every verb for its help."""
        from typer._click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb.name, help=verb.help) for verb in VERBS if verb.name.startswith(incomplete)]
        return verbs or super().shell_complete(ctx, incomplete)


app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
    subcommand_metavar="VERB ...",
    epilog=EXAMPLES,
)


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", rich_help_panel=REPORTING)] = False,
    json: JsonFlag = False,
) -> int:
    """Enlarge and restore pictures with any super-resolution model.

    Each model runs in an environment of its own, built when it is first used.
    """
    if version:
        Console(as_json=json).results(_version())
        raise typer.Exit(0)
    if ctx.invoked_subcommand is None and json:
        raise UsageError("no verb was named", hint="upx --help lists the verbs")
    if ctx.invoked_subcommand is None:
        sys.stderr.write(f"{ctx.get_help()}\n")
        return UsageError.exit_code
    return 0


def _version() -> Any:
    from importlib.metadata import version

    from upx.cli._results import Version
    from upx_protocol.version import NEWEST

    return Version(version("upx-sr"), f"{NEWEST.major}.{NEWEST.minor}", ".".join(map(str, sys.version_info[:3])))


def _meant(name: str) -> str:
    from upx.jobs import PICTURE_SUFFIXES

    if Path(name).suffix.lower() in PICTURE_SUFFIXES or Path(name).exists():
        return f"did you mean: upx up {name}"
    near = difflib.get_close_matches(name, [verb.name for verb in VERBS], n=1)
    return f"did you mean: upx {near[0]}" if near else "upx --help lists the verbs"


def run(args: Sequence[str], *, prog: str = "upx") -> int:
    """Run one command line and return its exit code; only shell completion leaves by SystemExit."""
    console = _console_for(args)
    try:
        code = get_command(app).main(args=list(args), prog_name=prog, standalone_mode=False)
    except UpxError as error:
        console.ended(error)
        return error.exit_code
    except ClickException as error:
        usage = _usage(error)
        console.ended(usage)
        return usage.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last stop: whatever a verb raises becomes one line
        console.traceback(error)
        console.ended(unexpected(error))
        return UpxError.exit_code
    if code == INTERRUPTED:
        console.ended(CancelledError("interrupted", hint="what was finished is whole; run it again for the rest"))
    return code if isinstance(code, int) else 0


def unexpected(error: Exception) -> UpxError:
    """An error that nobody foresaw, in the form that all have."""
    told = " ".join(str(error).split())
    wrapped = UpxError(f"unexpected {type(error).__name__}: {told}", hint="-v shows where; please report it")
    wrapped.__cause__ = error
    return wrapped


def _usage(error: ClickException) -> UsageError:
    """Typer's complaint, in the form that all errors have."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "upx"
    near: Sequence[str] = getattr(error, "possibilities", None) or ()
    if near:
        message = message.partition(" (Possible")[0]
        return UsageError(message[:1].lower() + message[1:], hint=f"did you mean {near[0]}? {path} --help lists them")
    return UsageError(message[:1].lower() + message[1:], hint=f"{path} --help says how it is used")


def _console_for(args: Sequence[str]) -> Console:
    """What the words themselves say of reporting: a line that cannot be parsed must still be answered rightly."""
    words = list(args)
    words = words[: words.index("--")] if "--" in words else words
    short = "".join(word[1:] for word in words if word.startswith("-") and word[1:].isalpha())
    return Console(as_json="--json" in words, verbose="--verbose" in words or "v" in short)
