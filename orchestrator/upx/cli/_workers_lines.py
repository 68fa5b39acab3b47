"""How workers look to people in ``upx ps`` and ``upx top``; importing this teaches the renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from upx.cli import _workers as kinds
from upx.cli._render import TABLES, Column, size_text, table, text, time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = "-"
# What is left out of a narrow terminal, first things first; the rest stays, and is cut off where there is no room.
EXPENDABLE = ("AGE", "DEVICE", "BACKEND", "MEMORY", "HOSTS", "TILES/S", "MODEL", "STATE")
GAP = 2
# From here on three digits would need an exponent.
_LARGE = 999.5
Cells: TypeAlias = tuple[tuple[str, ...], ...]


def number_text(value: float | None) -> str:
    """Three digits that count: ``0.213``, ``12.3``, ``1234``; nothing known is a dash."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= _LARGE else f"{value:.3g}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _device(row: kinds.WorkerRow) -> str:
    # What a device of another machine is called there says nothing here; `upx stop cuda:0` wants the name.
    return (row.device if row.place == kinds.LOCAL else row.device_name or row.device) or NOTHING


def _kept(row: kinds.WorkerRow) -> str:
    if row.place != kinds.LOCAL:
        return NOTHING
    return "with its command" if row.tied else time_text(row.keep_alive)


def _idle(row: kinds.WorkerRow) -> str:
    return NOTHING if row.hosts or row.place != kinds.LOCAL else time_text(row.idle)


WHO: tuple[Column, ...] = (
    ("ID", lambda row: row.id),
    ("BACKEND", lambda row: row.backend or NOTHING),
    ("MODEL", lambda row: row.model or NOTHING),
    ("DEVICE", _device),
    ("STATE", lambda row: row.state),
    ("HOSTS", lambda row: str(row.hosts)),
    ("QUEUE", lambda row: NOTHING if row.queue is None else str(row.queue)),
)
SIZE: tuple[Column, ...] = (
    ("MEMORY", lambda row: size_text(row.memory) if row.memory else NOTHING),
    ("AGE", lambda row: time_text(row.age) if row.age else NOTHING),
)
PS: tuple[Column, ...] = (
    *WHO,
    ("RATE", lambda row: NOTHING if row.rate is None else f"{number_text(row.rate)} MP/s"),
    ("IDLE", _idle),
    ("KEPT", _kept),
    *SIZE,
    ("PID", lambda row: str(row.pid) if row.pid else NOTHING),
)
TOP: tuple[Column, ...] = (
    *WHO,
    ("MP/S", lambda row: number_text(row.megapixels_per_second)),
    ("TILES/S", lambda row: number_text(row.tiles_per_second)),
    ("BUSY", lambda row: _share(row.busy)),
    *SIZE,
)
TABLES[kinds.WorkerRow] = PS
TABLES[kinds.TopRow] = TOP


def total_text(sample: kinds.TopSample) -> str:
    """The sums of a sample, in a line."""
    away = sum(row.state in kinds.AWAY for row in sample.workers)
    count = len(sample.workers)
    parts = (
        f"{count} worker{'' if count == 1 else 's'}{f' ({away} away)' if away else ''}",
        f"queue {sample.queue}",
        f"{number_text(sample.megapixels_per_second)} MP/s",
        f"{number_text(sample.tiles_per_second)} tiles/s",
        f"{_share(sample.busy)} busy",
    )
    return f"total: {', '.join(parts)}"


@text.register
def _sample(result: kinds.TopSample) -> list[str]:
    return [*table(TOP, result.workers), total_text(result)]


def fitting(rows: Sequence[kinds.TopRow], width: int) -> Cells:
    """The table's cells, headers first, without the columns for which ``width`` characters have no room."""
    columns = list(TOP)
    for header in EXPENDABLE:
        if _width(columns, rows) <= width:
            break
        columns.remove(next(each for each in columns if each[0] == header))
    return (tuple(header for header, _ in columns), *(tuple(cell(row) for _, cell in columns) for row in rows))


def _width(columns: Sequence[Column], rows: Sequence[kinds.TopRow]) -> int:
    widths = (max(len(header), *(len(cell(row)) for row in rows), 0) for header, cell in columns)
    return sum(widths) + GAP * (len(columns) - 1)
