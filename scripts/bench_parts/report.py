"""What a part of the bench says: a table with goals, as text, as JSON and as a plot."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure. ``goal`` is the most it may be; None where there is none."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "ok" if self.value <= self.goal else "MISSED"


@dataclass(frozen=True)
class Table:
    """One part's figures and what has to be said beside them."""

    part: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def missed(self) -> int:
        return sum(row.verdict == "MISSED" for row in self.rows)

    def text(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"\n{self.title}"]
        for row in self.rows:
            goal = "" if row.goal is None else f"  goal {figure(row.goal)}"
            line = f"  {row.name:<{width}}  {figure(row.value):>9} {row.unit:<7}{goal:<13} {row.verdict:<6} {row.note}"
            lines.append(line.rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "missed": self.missed}

    def write_svg(self, path: Path) -> None:
        """A bar for each row, one scale for each unit, and a mark where its goal is."""
        most = {row.unit: max(max(r.value, r.goal or 0) for r in self.rows if r.unit == row.unit) for row in self.rows}
        parts = [f'<text x="10" y="18" font-weight="bold">{html.escape(self.title)}</text>']
        for index, row in enumerate(self.rows):
            top, full = 30 + index * 22, 360 / (most[row.unit] or 1)
            colour = "#c0392b" if row.verdict == "MISSED" else "#2e86ab"
            parts += [
                f'<text x="10" y="{top + 13}">{html.escape(row.name[:52])}</text>',
                f'<rect x="340" y="{top}" width="{max(row.value, 0) * full:.1f}" height="16" fill="{colour}"/>',
                f'<text x="{345 + max(row.value, 0) * full:.1f}" y="{top + 13}">{figure(row.value)} {row.unit}</text>',
            ]
            if row.goal is not None:
                x = 340 + row.goal * full
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{top + 18}" stroke="#333"/>')
        height = 40 + 22 * len(self.rows)
        size = f'width="820" height="{height}" font-family="sans-serif" font-size="12"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        path.write_text("\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"]))


def figure(value: float) -> str:
    """A number with the digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
