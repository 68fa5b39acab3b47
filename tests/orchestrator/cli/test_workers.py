"""Lines of ``upx ps`` and ``upx top``: what is known, what is not, and what a box may not do to a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from upx.cli._pace import Pace
from upx.cli._render import to_lines, to_record
from upx.cli._screen import picture
from upx.cli._workers import top_sample, worker_row
from upx.cli._workers_lines import EXPENDABLE, TOP, fitting, number_text, total_text
from upx.errors import ProtocolVersionError, WorkerStartError
from upx.remote.sights import Sight
from upx.workers.registry import WorkerInfo
from upx_protocol.messages import Pong

PONG = Pong(
    1, queued=7, hosts=2, memory=1 << 30, tiles_done=40, pixels_done=2_000_000, busy_s=8.0, age_s=100.0,
    model="span-x4", device="cuda:0", device_name="NVIDIA H200",
)  # fmt: skip
SILENT = WorkerStartError("attic cannot be reached: it does not answer", hint="is it on?")
HOSTILE = Pong(
    1, queued=2**63 - 1, hosts=-1, memory=2**63 - 1, tiles_done=2**63 - 1, pixels_done=2**63 - 1, busy_s=1e308,
    age_s=1e308, model="\x1b[2J\x1b]52;c;cm0=\x07", device="\x9b31m\n\r", device_name="x\u202ey" + "z" * 16_000,
)  # fmt: skip


def info(**changes) -> WorkerInfo:
    facts = {"pid": 42, "backend": "span", "model": "span-x4", "device": "cpu", "endpoint": "ipc:///x", "tied": False}
    facts |= {"hosts": 1, "memory": 5 << 20, "idle_s": 300.0}
    return WorkerInfo(Path("/x.json"), 1, "1a2b3c4d5e6f", 0, alive=True, **{**facts, **changes})


def here(pong: Pong | None = PONG, error=None, **changes) -> Sight:
    found = info(**changes)
    return Sight(found.name, found.backend, info=found, pong=pong, error=error)


def there(pong: Pong | None = PONG, error=None, name: str = "attic:7600") -> Sight:
    return Sight(name, "span", "attic", pong=pong, error=error)


def sample(*sights: Sight, pace: Pace | None = None):
    return top_sample([worker_row(each) for each in sights], [pace for _ in sights], 1_700_000_000.0)


def test_a_worker_of_this_machine_is_its_entry_and_its_answer() -> None:
    row = worker_row(here())
    assert (row.id, row.place, row.device, row.pid, row.keep_alive) == ("span-1a2b3c4d-0", "local", "cpu", 42, 300.0)
    assert (row.hosts, row.queue, row.tiles, row.megapixels, row.busy_seconds) == (2, 7, 40, 2.0, 8.0)
    assert row.rate == 0.25, "megapixels for each second that it computed, not for each that it lived"
    assert (row.state, row.message) == ("in use", "")


def test_a_worker_of_a_box_is_what_the_box_says() -> None:
    row = worker_row(there())
    assert (row.id, row.place, row.backend, row.model) == ("attic:7600", "attic", "span", "span-x4")
    assert (row.device, row.device_name, row.memory, row.age) == ("cuda:0", "NVIDIA H200", 1 << 30, 100.0)
    head, line = to_lines([row])
    assert "NVIDIA H200" in line
    assert "0.25 MP/s" in line
    assert line[head.index("KEPT") :].split()[0] == "-", "how long it stays is its box's business"


@pytest.mark.parametrize(
    ("sight", "state"),
    [
        (here(endpoint=""), "starting"),
        (here(Pong(1, age_s=1.0)), "idle"),
        (here(None), "in use"),
        (here(None, SILENT), "no answer"),
        (here(None, ProtocolVersionError("older", hint="")), "in use"),
        (there(None), "connecting"),
        (there(None, SILENT), "unreachable"),
        (there(None, ProtocolVersionError("older", hint="")), "unreachable"),
    ],
)
def test_the_state_says_what_is_known(sight, state) -> None:
    assert worker_row(sight).state == state


def test_what_is_not_known_is_a_dash_and_no_zero() -> None:
    row = worker_row(there(None, SILENT))
    assert (row.queue, row.tiles, row.rate) == (None, None, None)
    assert row.message == "attic cannot be reached: it does not answer"
    _, line = to_lines([row])
    assert line.split() == ["attic:7600", "span", "-", "-", "unreachable", "0", *"-------"]


def test_a_worker_that_has_computed_nothing_has_no_rate() -> None:
    assert worker_row(here(Pong(1, busy_s=0.5, age_s=3.0))).rate is None
    assert worker_row(here(Pong(1, tiles_done=9))).tiles is None, "an older release, which tells no time"


def test_a_hostile_box_sends_no_command_to_a_terminal_and_breaks_no_line() -> None:
    hostile = Sight("attic:7600", "span", "attic", pong=HOSTILE, error=WorkerStartError("a\x1b[1mb\nc", hint=""))
    for result in (worker_row(hostile), sample(hostile, pace=Pace(1e17, 1e17, 1.0))):
        lines = to_lines([result])
        assert all(line.isprintable() and len(line) < 400 for line in lines), lines
        json.dumps(to_record(result), allow_nan=False)


def test_the_total_counts_what_is_known() -> None:
    total = sample(here(), there(), there(None, SILENT))
    assert total_text(total) == "total: 3 workers (1 away), queue 14, 0 MP/s, 0 tiles/s, 0% busy"
    two = top_sample(
        [worker_row(here()), worker_row(there()), worker_row(there(None, SILENT))],
        [Pace(1.5, 3.0, 1.0), Pace(0.5, 1.0, 0.5), None], 0.0,
    )  # fmt: skip
    assert total_text(two) == "total: 3 workers (1 away), queue 14, 2 MP/s, 4 tiles/s, 75% busy"
    assert (two.workers[0].tiles_per_second, two.workers[2].busy) == (3.0, None)
    assert total_text(sample()) == "total: 0 workers, queue 0, 0 MP/s, 0 tiles/s, 0% busy"


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_a_narrow_terminal_is_given_fewer_columns_and_whole_ones(width) -> None:
    rows = sample(here(), there(), there(None, SILENT), pace=Pace(0.5, 2.0, 0.9)).workers
    headers, *cells = fitting(rows, width)
    assert [header for header, _ in TOP if header in headers] == list(headers), "in their order"
    assert {"ID", "QUEUE", "MP/S", "BUSY"} <= set(headers)
    widest = sum(max(map(len, column)) for column in zip(headers, *cells, strict=True)) + 2 * (len(headers) - 1)
    assert widest <= width or len(headers) == len(TOP) - len(EXPENDABLE)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 3), (40, 5), (80, 24), (200, 50)])
def test_what_is_drawn_fits_any_terminal_and_holds_no_command_of_a_box(width, height) -> None:
    out = io.StringIO()
    terminal = Terminal(file=out, width=width, height=height, color_system=None, markup=False)
    drawn = sample(here(), there(HOSTILE), there(None, SILENT), pace=Pace(0.5, 2.0, 0.9))
    terminal.print(picture(drawn, width))
    lines = out.getvalue().splitlines()
    assert lines
    assert all(len(line) <= width and line.isprintable() for line in lines)


def test_nobody_at_work_is_said() -> None:
    out = io.StringIO()
    Terminal(file=out, width=80, color_system=None).print(picture(sample(), 80))
    assert "no workers are running" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0, "0"), (0.21349, "0.213"), (12.34, "12.3"), (999.6, "1000"), (12345.6, "12346")],
)
def test_rates_have_three_digits_that_count(value, words) -> None:
    assert number_text(value) == words
