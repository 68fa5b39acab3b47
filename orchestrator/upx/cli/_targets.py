"""Where the pictures of one command go: names decided in ``naming``, folders looked at here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from upx.errors import OutputError, OutputPathError, UsageError
from upx.jobs import STDIO
from upx.naming import parse_output, plan_outputs, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.jobs import Input, JobOptions
    from upx.naming import Content, Destination, Facts, Plan


def plan_targets(
    items: Sequence[Input],
    output: str | None,
    facts: Facts,
    options: JobOptions,
    *,
    stdin: bytes = b"",
    trace: Path | None = None,
) -> list[Plan]:
    """Name and check every output before any work; see ``plan_outputs`` and ``settle`` for what is refused.

    OutputPathError as well for a folder that is not there or cannot be written, and for an output where the trace goes.
    """
    is_folder = output is not None and output != STDIO and Path(output).is_dir()
    destination = parse_output(output, is_folder=is_folder)
    plans = plan_outputs(items, destination, facts, format=options.format, content=_reader(facts, stdin))
    plans = settle(plans, options.on_exists, exists=os.path.lexists)
    for root in {fixed_folder(plan, destination) for plan in plans if plan.target and not plan.skip}:
        _check_folder(root)
    for plan in plans:
        if plan.target is not None and plan.target.is_dir():
            raise OutputPathError(f"{plan.target} is a folder", hint="give the output another name with -o")
    if trace is not None:
        from upx.pipeline.trace_file import keep_apart

        keep_apart(trace, (plan.target for plan in plans))
    return plans


def check_stdout(*, as_json: bool, terminal: bool) -> None:
    """UsageError where bytes on standard output would meet records or a screen."""
    if as_json:
        raise UsageError("-o - and --json would share standard output", hint="write to a file, or leave --json out")
    if terminal:
        raise UsageError("-o - would write a picture to the screen", hint="upx up photo.jpg -o - > big.png")


def make_folder(plan: Plan) -> None:
    """Make the part of a mirrored tree that is missing; OutputError when that fails."""
    if plan.target is None:
        return
    try:
        plan.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{plan.target.parent} cannot be made: {error.strerror}"
        raise OutputError(message, hint="choose another folder with -o") from error


def fixed_folder(plan: Plan, destination: Destination) -> Path:
    """The folder that must be there: what lies below it, a tree or a template's fields, is made."""
    if destination.folder is None:
        return (plan.input.source or Path()).parent
    if destination.mirrored:
        return destination.folder
    fixed = Path()
    for part in Path(destination.name).parts[:-1]:
        if "{" in part:
            break
        fixed /= part
    # A template that starts with {dir} lies beside its input, which is there.
    return (plan.input.source or Path()).parent if destination.name.startswith("{dir}") else fixed


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputPathError(f"{folder} is a file, no folder", hint="choose another folder with -o")
    if not folder.is_dir():
        raise OutputPathError(f"{folder} is no folder", hint=f"make it first: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputPathError(f"{folder} cannot be written to", hint="choose another folder with -o")


def _reader(facts: Facts, stdin: bytes) -> Callable[[Input], Content]:
    def read(item: Input) -> Content:
        from upx.pipeline.content import content_of

        return content_of(stdin if item.source is None else item.source, facts.scale)

    return read
