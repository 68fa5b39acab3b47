"""How help looks: options in groups, examples as they are typed, plain text that needs no rich."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def format_groups(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the arguments, then the options by their panel in order of appearance; ``--help`` comes last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        # Defaults stand first among an option's words, which saves a line for most.
        param.show_default = False
        record = param.get_help_record(ctx)
        if record is not None:
            fallback = "Arguments" if param.param_type_name == "argument" else "Other options"
            groups.setdefault(getattr(param, "rich_help_panel", None) or fallback, []).append(record)
    groups["Other options"] = groups.pop("Other options", [])
    for name, records in groups.items():
        if records:
            with formatter.section(name):
                formatter.write_dl(records)


def format_examples(epilog: str | None, formatter: Any) -> None:
    """Write the epilog line by line, unwrapped: a command is copied as it stands."""
    if epilog:
        with formatter.section("Examples"):
            for line in epilog.strip().splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class VerbCommand(TyperCommand):
    """A verb's help."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name what is required as it is, without typer's braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Group the options."""
        format_groups(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # the base class's signature
        """Print the examples."""
        format_examples(self.epilog, formatter)


class VerbGroup(TyperGroup):
    """The help of a verb that has verbs of its own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Verbs first, then the options."""
        self.format_commands(ctx, formatter)
        format_groups(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # the base class's signature
        """Print the examples."""
        format_examples(self.epilog, formatter)


def verb_app() -> typer.Typer:
    """An application for one verb, in the way all of them are set up."""
    return typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings=HELP_NAMES,
    )
