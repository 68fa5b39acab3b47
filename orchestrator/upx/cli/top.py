"""``upx top``: watch the workers at work."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from upx.cli import _host
from upx.cli._console import Console
from upx.cli._help import VerbCommand, verb_app
from upx.cli._options import JsonFlag, OnOption, parse_on

if TYPE_CHECKING:
    from upx.cli._workers import TopSample
    from upx.remote.sights import Lookout

app = verb_app()
EXAMPLES = """
upx top                         q or Ctrl-C ends it
upx top --on attic --every 5
upx top --once                  one table, of two looks
upx top --json | jq .megapixels_per_second
"""
EVERY, LEAST, MOST = 1.0, 0.2, 3600.0
# The first look waits for those that can be reached; later ones come as they are.
FIRST_S = 3.0


@app.command(cls=VerbCommand, epilog=EXAMPLES)
def top(
    on: OnOption = None,
    *,
    every: Annotated[
        float,
        typer.Option(
            "--every",
            metavar="SECONDS",
            min=LEAST,
            max=MOST,
            help=f"The time from look to look; {EVERY:g} s by default.",
        ),
    ] = EVERY,
    once: Annotated[bool, typer.Option("--once", help="Look twice, --every apart, print one table, and end.")] = False,
    json: JsonFlag = False,
) -> int:
    """Watch the workers of this machine and of every box; --on picks some.

    MP/S: megapixels of input a second, TILES/S and BUSY beside it, over the last ten seconds. QUEUE: tiles that wait or
    are computed. Nobody is disturbed: an idle worker still ends in its time. Without a terminal a table is printed for
    each look; with --json a record.
    """
    import upx.cli._workers_lines  # noqa: F401  # pyright: ignore[reportUnusedImport]  # teaches the renderer
    from upx.remote.boxes import named_boxes
    from upx.remote.sights import Lookout

    names = parse_on(on)
    here = not names or bool({"any", "local"} & set(names))
    settings = _host.read_settings()
    boxes = named_boxes(names or ("any",), settings)
    try:
        with Lookout(settings, boxes, here=here) as lookout:
            looks = Looks(lookout, every)
            if once:
                looks.take()
                time.sleep(every)
                Console(as_json=json).results(looks.take())
            elif json or not sys.stdout.isatty():
                _print(looks, Console(as_json=json), every)
            else:
                _draw(looks, every)
    except KeyboardInterrupt:
        if once:
            raise
        # That is how it ends: nothing is lost, and nothing is left to say.
        return 0
    return 0


class Looks:
    """One sample after the other."""

    def __init__(self, lookout: Lookout, every: float) -> None:
        from upx.cli._pace import Paces

        self._lookout, self._paces = lookout, Paces()
        self._most, self._first = min(every, 1.0), True

    def take(self) -> TopSample:
        """Look at everybody."""
        from upx.cli._workers import top_sample, worker_row

        seen = self._lookout.look(most=FIRST_S if self._first else self._most)
        self._first = False
        self._paces.hear({each.name: each.pong for each in seen})
        return top_sample(
            [worker_row(each) for each in seen], [self._paces.of(each.name) for each in seen], time.time()
        )


def _print(looks: Looks, console: Console, every: float) -> None:
    """A table or a record for each look, until nobody reads any more."""
    due = time.monotonic()
    while True:
        console.results(looks.take())
        if console.deaf:
            return
        due = max(due + every, time.monotonic())
        time.sleep(due - time.monotonic())


def _draw(looks: Looks, every: float) -> None:
    from upx.cli._screen import Screen

    with Screen() as screen:
        due = time.monotonic()
        while True:
            screen.show(looks.take())
            due = max(due + every, time.monotonic())
            if screen.ended(due - time.monotonic()):
                return
