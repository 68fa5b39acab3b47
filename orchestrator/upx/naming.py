"""What outputs are called: where ``-o`` points, the fields of a template, and names that cannot be.

Pure, except that paths are compared with their links resolved.
"""

from __future__ import annotations

import dataclasses
import os
import string
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from upx.errors import InputError, OutputPathError
from upx.jobs import FORMAT_OF, STDIO, parse_format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from upx.jobs import Format, Input, OnExists

SUFFIX_OF: dict[Format, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
DEFAULT_NAME = "{stem}_{scale:g}x_{model}{ext}"
FIELDS = ("stem", "ext", "dir", "rel", "index", "scale", "width", "height", "backend", "model", "seed", "date", "hash")
LONGEST_NAME = 255  # bytes of one component, on every common file system


@dataclass(frozen=True, slots=True)
class Facts:
    """What names may say of a whole job; ``date`` is YYYY-MM-DD."""

    scale: float
    backend: str
    model: str
    seed: int | None = None
    date: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What names may say of a picture: its output's size in pixels, and 12 hex digits of its bytes' sha256."""

    width: int = 0
    height: int = 0
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where ``-o`` points: ``name`` is the template of a path below ``folder``.

    ``folder`` None is each input's own; ``mirrored`` keeps the tree of a folder that was named; ``single``
    takes one input only; ``stdout`` is bytes to standard output.
    """

    name: str = DEFAULT_NAME
    folder: Path | None = None
    mirrored: bool = False
    single: bool = False
    stdout: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One input and where it goes: ``target`` None is standard output, or nowhere when the input has an error."""

    input: Input
    target: Path | None
    format: Format
    skip: bool = False


def parse_output(output: str | None, *, is_folder: bool = False) -> Destination:
    """What ``-o`` means; ``is_folder`` says that a folder of that name exists."""
    if output is None:
        return Destination()
    if output == STDIO:
        return Destination(single=True, stdout=True)
    if is_folder or output.endswith(("/", os.sep)):
        return Destination(folder=Path(output), mirrored=True)
    if "{" in output or "}" in output:
        used = template_fields(output)
        return Destination(name=output, folder=Path(), single=used.isdisjoint({"stem", "rel", "index", "hash"}))
    # A brace cannot be in it, so that the path is its own template.
    return Destination(name=output, folder=Path(), single=True)


def template_fields(template: str) -> frozenset[str]:
    """The fields that an output template names; OutputPathError for one that is unknown or malformed."""
    fields = ", ".join(FIELDS)
    try:
        used = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        message = f"the output template {template!r} is malformed: {error}"
        raise OutputPathError(message, hint=f"fields are written {{name}}; there are {fields}") from error
    for name in used:
        if name not in FIELDS:
            raise OutputPathError(f"the output template has no field {{{name}}}", hint=f"fields: {fields}")
    return frozenset(used)


def plan_outputs(
    inputs: Sequence[Input],
    destination: Destination,
    facts: Facts,
    *,
    format: str | None = None,  # noqa: A002  # what the option is called
    content: Callable[[Input], Content] = lambda _: Content(),
) -> list[Plan]:
    """Name every output, and check the names before any work is done.

    ``content`` is asked only for templates that name width, height or hash; an InputError from it fails that
    input alone. OutputPathError: several inputs into one file, two inputs into one output, an output that is
    an input, a name that is too long, a suffix that cannot be written. What lies in a searched folder and is
    another input's output, from an earlier run, is left out.
    """
    usable = sum(item.error is None for item in inputs)
    if destination.single and usable > 1:
        into = "standard output" if destination.stdout else destination.name
        hint = "give a folder (-o DIR/) or a template (-o '{stem}_big{ext}')"
        raise OutputPathError(f"{usable} inputs would go into {into}", hint=hint)
    plans = [_plan(item, number, destination, facts, format, content) for number, item in enumerate(inputs, 1)]
    targets = {_key(plan.target) for plan in plans if plan.target}
    plans = [
        plan for plan in plans if not (plan.input.found and plan.input.source and _key(plan.input.source) in targets)
    ]
    _check(plans)
    return plans


def _plan(
    item: Input,
    number: int,
    destination: Destination,
    facts: Facts,
    format: str | None,  # noqa: A002  # what the option is called
    content: Callable[[Input], Content],
) -> Plan:
    kind = _format(item, destination, format)
    if item.error is not None or destination.stdout:
        return Plan(item, None, kind)
    try:
        named = bool(template_fields(destination.name) & {"width", "height", "hash"})
        about = content(item) if named else Content()
    except InputError as error:
        return Plan(dataclasses.replace(item, error=error), None, kind)
    folder = destination.folder if destination.folder is not None else (item.source or Path()).parent
    if destination.mirrored:
        folder /= item.rel.parent
    return Plan(item, folder / _fill(destination.name, item, number, kind, facts, about), kind)


def _format(item: Input, destination: Destination, asked: str | None) -> Format:
    """``-f``, else the output's suffix, else the input's where that can be written, else png."""
    if asked is not None:
        return parse_format(asked)
    own: Format = FORMAT_OF.get(item.rel.suffix.lower(), "png")
    if destination.stdout or destination.name.endswith("{ext}"):
        return own
    suffix = Path(destination.name).suffix
    if suffix.lower() in FORMAT_OF:
        return FORMAT_OF[suffix.lower()]
    if not suffix:
        hint = f"{destination.name}.png for a file, or mkdir {destination.name} first for a folder"
        raise OutputPathError(f"-o {destination.name} has no suffix and is no folder", hint=hint)
    hint = "png, jpg and webp can be; -f says what to write under another name"
    raise OutputPathError(f"{suffix} cannot be written: {destination.name}", hint=hint)


def _fill(template: str, item: Input, number: int, kind: Format, facts: Facts, about: Content) -> str:
    suffix = item.rel.suffix
    values: dict[str, object] = {
        **{name: cast("object", getattr(facts, name)) for name in ("scale", "backend", "model", "date")},
        **{name: cast("object", getattr(about, name)) for name in ("width", "height", "hash")},
        "stem": item.rel.stem,
        # An input's own spelling of the format stays as it is.
        "ext": suffix if FORMAT_OF.get(suffix.lower()) == kind else SUFFIX_OF[kind],
        "dir": str((item.source or Path()).parent),
        "rel": item.rel.parent.as_posix(),
        "index": number,
        "seed": "" if facts.seed is None else facts.seed,
    }
    try:
        return template.format_map(values)
    except (ValueError, LookupError) as error:
        hint = "formats are Python's: {index:04}, {scale:g}"
        raise OutputPathError(f"the output template {template!r} cannot be filled: {error}", hint=hint) from error


def _check(plans: Sequence[Plan]) -> None:
    """Refuse names that collide, overwrite an input or are too long."""
    sources = {_key(plan.input.source): plan.input.name for plan in plans if plan.input.source}
    taken: dict[str, str] = {}
    for plan in plans:
        if plan.target is None:
            continue
        key, name = _key(plan.target), plan.input.name
        if key in taken:
            hint = "a template with {index}, {rel} or {ext} tells them apart"
            raise OutputPathError(f"{taken[key]} and {name} would both become {plan.target}", hint=hint)
        if key in sources:
            raise OutputPathError(f"{name} would overwrite the input {sources[key]}", hint="give another name with -o")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in plan.target.parts):
            hint = "give a shorter one with -o"
            raise OutputPathError(f"the output of {name} has a name of over {LONGEST_NAME} bytes", hint=hint)
        taken[key] = name


def settle(plans: Sequence[Plan], on_exists: OnExists, *, exists: Callable[[Path], bool]) -> list[Plan]:
    """Apply ``--on-exists``: skip, a free name, or an OutputPathError that names the first that is there."""
    taken = {_key(plan.target) for plan in plans if plan.target}
    settled: list[Plan] = []
    for plan in plans:
        if on_exists == "overwrite" or plan.target is None or not exists(plan.target):
            settled.append(plan)
        elif on_exists == "skip":
            settled.append(dataclasses.replace(plan, skip=True))
        elif on_exists == "rename":
            free = _free(plan.target, taken, exists)
            taken.add(_key(free))
            settled.append(dataclasses.replace(plan, target=free))
        else:
            hint = "--on-exists overwrite, skip or rename"
            raise OutputPathError(f"{plan.target} exists", hint=hint)
    return settled


def _free(target: Path, taken: set[str], exists: Callable[[Path], bool]) -> Path:
    number = 2
    while True:
        free = target.with_name(f"{target.stem}_{number}{target.suffix}")
        if _key(free) not in taken and not exists(free):
            return free
        number += 1


def _key(path: Path) -> str:
    """What makes two paths the same file here: links resolved, case folded where the system does."""
    return os.path.normcase(os.path.realpath(path))
