"""Round trips of a served client in quiet times, beside a control and under attack, and whether that is too much."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from _targets import Done

MOST_RATIO = 2.0


@dataclass
class Figures:
    """Round trips of the served client, all rounds together, and what its attackers did meanwhile."""

    quiet: list[float] = field(default_factory=list)
    control: list[float] = field(default_factory=list)
    attacked: list[float] = field(default_factory=list)
    attacks: list[Done] = field(default_factory=list)

    @property
    def too_much(self) -> bool:
        """Where a round fell over there is nothing to compare: it has failed already."""
        if not self.quiet or not self.attacked:
            return False
        return p99(self.attacked) > MOST_RATIO * max(map(p99, filter(None, (self.quiet, self.control))))

    def __str__(self) -> str:
        quiet, attacked = p99(self.quiet), p99(self.attacked)
        said = f"p99 {1e3 * quiet:.1f} ms, attacked {1e3 * attacked:.1f} ms: {attacked / quiet:.2f} of it"
        if self.control:
            said += f", {attacked / p99(self.control):.2f} of the control's {1e3 * p99(self.control):.1f} ms"
        connections, sent = sum(done.connections for done in self.attacks), sum(done.sent for done in self.attacks)
        return f"{said}; {connections:,} connections, {sent / 1e6:,.1f} MB"


def p99(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 99)) if seconds else float("nan")
