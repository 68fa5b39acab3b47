"""What people embed: ``up`` for one picture, ``Upscaler`` for many with the model kept warm."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from upx.config import Settings
from upx.errors import OutputPathError, ParameterError, UnreadablePictureError, UpxError, WorkerError
from upx.futures import JobFuture, results
from upx.jobs import Input, JobOptions
from upx.naming import Facts, parse_output, plan_outputs
from upx.routes import Request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from PIL import Image

    from upx.host import Host
    from upx.result import JobProgress, Result
    from upx.session import Session
    from upx.specs import ParameterValue

Picture: TypeAlias = "str | Path | Image.Image | NDArray[Any]"
Place: TypeAlias = "str | Path | None"
Tile: TypeAlias = "Literal['auto', 'off'] | int"

# Pictures of one Upscaler in progress at a time: the next is decoded and the last encoded while one is computed.
JOBS_AT_ONCE = 2


class Upscaler:
    """A model with its workers, started at first use.

    ``backend`` and ``model`` name what to use (each also accepts an alias), ``scale`` picks the model of a family,
    ``weights`` is a file or folder of your own instead of the released ones. ``device``: "auto", "cpu", "cuda",
    "cuda:N", "mps"; ``precision``: "auto", "fp32", "fp16", "bf16". ``tile``: "auto", "off" or input pixels.
    ``workers``: processes at most, 0 for as many as fit the machine. ``keep_alive``: 0 ties workers to this process,
    seconds keep them, None for ever. ``on``: boxes, "local", "any". ``params``: the model's own (upx backends info).

    Callable with a path (gives the written ``Path``), a Pillow picture (gives one), or an array (H, W), (H, W, 1),
    (H, W, 3) or (H, W, 4) of uint8 or float32 0..1 (gives one of the same dtype, H * scale by W * scale). Errors
    are ``UpxError`` and its subclasses. Use it in a ``with`` block, or ``close()`` it.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # the public face, fixed in the design
        self,
        backend: str | None = None,
        model: str | None = None,
        scale: int | None = None,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        tile: Tile = "auto",
        seed: int | None = None,
        workers: int = 1,
        keep_alive: float | None = 0,
        on: str | Sequence[str] = (),
        **params: ParameterValue,
    ) -> None:
        self._request = Request(
            backend=backend,
            model=model,
            scale=scale,
            weights=Path(weights) if weights is not None else None,
            device=device,
            precision=precision,
            workers=workers,
            keep_alive=keep_alive,
            params=params,
            on=(on,) if isinstance(on, str) else tuple(on),
        )
        self._options = JobOptions(tile=_tile(tile), seed=seed)
        self._lock = threading.Lock()
        self._host: Host | None = None
        self._session: Session | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: set[JobFuture] = set()
        self._working: set[int] = set()
        self._closed = False
        self._pid = os.getpid()

    def __call__(
        self,
        picture: Picture,
        out: Place = None,
        *,
        on_progress: Callable[[JobProgress], None] | None = None,
        trace: Place = None,
    ) -> Any:
        """Enlarge one picture and wait for it.

        ``out``: a file, a folder or a template; without it a path is written beside the input under its default
        name, and what came from memory comes back in memory. ``trace``: a file for what took which time.
        """
        return self.submit(picture, out, on_progress=on_progress, trace=trace).wait().output

    def submit(
        self,
        picture: Picture,
        out: Place = None,
        *,
        on_progress: Callable[[JobProgress], None] | None = None,
        trace: Place = None,
    ) -> JobFuture:
        """Start one picture and give its future; ``on_progress`` is called from another thread."""
        threads = self._started()
        future = JobFuture()
        self._running.add(future)
        future.add_done_callback(lambda _done: self._running.discard(future))
        try:
            threads.submit(self._work, future, picture, out, on_progress, trace)
        except RuntimeError as error:  # the interpreter ends, or another thread closes this Upscaler
            future.cancel()
            raise UpxError(
                f"no picture is begun any more: {error}", hint="join threads before the program ends"
            ) from error
        return future

    def run(
        self,
        picture: Picture,
        out: Place = None,
        *,
        on_progress: Callable[[JobProgress], None] | None = None,
        trace: Place = None,
    ) -> asyncio.Future[Result]:
        """``await up.run(x)``: ``submit`` for asyncio; cancelling the awaiting task cancels the job."""
        import asyncio

        return asyncio.wrap_future(self.submit(picture, out, on_progress=on_progress, trace=trace))

    def batch(self, pictures: Iterable[Picture], out: Place = None) -> Iterator[Result]:
        """Results in input order, each as soon as it is there; a failed picture's carries its ``error``.

        ``pictures`` may be any iterator; it is read a few pictures ahead. Leaving the loop cancels what is begun;
        an exception of the iterator's comes after the results of what it gave before.
        """
        return results(pictures, lambda picture: self.submit(picture, out), ahead=JOBS_AT_ONCE)

    def warm(self) -> None:
        """Start a worker and load the model now, instead of with the first picture."""
        self._opened().warm()

    def close(self) -> None:
        """Cancel what is running and end the workers that are tied to this process.

        May be called twice, and from any thread: one of its own callbacks does not wait for itself.
        """
        with self._lock:
            self._closed = True
            host, threads = self._host, self._threads
            self._host = self._session = self._threads = None
        for future in list(self._running):
            future.cancel()
        if threads is not None:
            threads.shutdown(wait=threading.get_ident() not in self._working)
        if host is not None:
            self._release.detach()
            host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> ThreadPoolExecutor:
        self._refuse_closed()
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(JOBS_AT_ONCE, thread_name_prefix="upx-job")
            return self._threads

    def _opened(self) -> Session:
        self._refuse_closed()
        with self._lock:
            if self._session is None:
                from upx.host import Host

                if self._closed:
                    raise _closed()
                host = Host(Settings.from_env())
                self._session = host.open(self._request)
                self._host = host
                # Who forgets to close it keeps neither workers nor sockets. At the interpreter's end they go anyway.
                self._release = weakref.finalize(self, _close_aside, host)
                self._release.atexit = False
            return self._session

    def _refuse_closed(self) -> None:
        if os.getpid() != self._pid:
            # Threads, sockets and locks stayed behind in the parent.
            raise WorkerError(
                "this process is a forked copy of the one that made the Upscaler", hint="make another one"
            )
        if self._closed:
            raise _closed()

    def _work(
        self,
        future: JobFuture,
        picture: Picture,
        out: Place,
        on_progress: Callable[[JobProgress], None] | None,
        trace: Place,
    ) -> None:
        """One job in a job thread; whatever happens ends in the future, unless that was cancelled."""
        if future.cancelled():
            return
        self._working.add(threading.get_ident())
        try:
            from upx.pipeline.trace_file import traced

            with traced(None if trace is None else Path(trace)) as tracer:
                session = self._opened()
                source = _source(picture)
                target, options = self._target(session, source, out)
                result = session.run(
                    source, target, options, on_progress=on_progress, cancel=future.stop, tracer=tracer
                )
        except BaseException as error:  # noqa: BLE001  # it is raised where the future is asked
            future.settle(error=error)
        else:
            future.settle(result=result)
        finally:
            self._working.discard(threading.get_ident())

    def _target(
        self, session: Session, source: Path | Image.Image | NDArray[Any], out: Place
    ) -> tuple[Path | None, JobOptions]:
        from upx.pipeline.content import content_of

        if out is None and not isinstance(source, Path):
            return None, self._options
        name = source if isinstance(source, Path) else Path("picture.png")
        route = session.route
        today = datetime.now().astimezone().date().isoformat()
        facts = Facts(route.model.scale, route.backend.name, route.model.name, self._options.seed, today)
        folder = out is not None and Path(out).is_dir()
        destination = parse_output(None if out is None else str(out), is_folder=folder)
        if destination.stdout:
            raise OutputPathError("'-' is for the command", hint="give a path, or none to get an array or picture")
        item = Input(name=str(name), source=source if isinstance(source, Path) else None, rel=Path(name.name))
        plan = plan_outputs([item], destination, facts, content=lambda _: content_of(source, facts.scale))[0]
        if plan.input.error is not None:
            raise plan.input.error
        return plan.target, JobOptions(tile=self._options.tile, seed=self._options.seed, format=plan.format)


def up(picture: Picture, out: Place = None, *, workers: int = 0, trace: Place = None, **options: Any) -> Any:
    """Enlarge one picture with a model that is started for it and ends with it; options as ``Upscaler`` has them.

    Gives the written ``Path`` for a path, a Pillow picture for one, an array for one. ``workers`` 0: as many as
    this machine and backend are fastest with.
    """
    with Upscaler(workers=workers, **options) as upscaler:
        return upscaler(picture, out, trace=trace)


def _source(picture: Picture) -> Path | Image.Image | NDArray[Any]:
    """The picture, a path where it is text; UnreadablePictureError for text that names nothing."""
    if not isinstance(picture, str):
        return picture
    if not picture or "\0" in picture:
        raise UnreadablePictureError(f"{picture!r} is no path", hint="give a path, a Pillow picture or a numpy array")
    return Path(picture)


def _close_aside(host: Host) -> None:
    """Close what a forgotten Upscaler had, from a thread: the garbage collector may run in one of its own."""
    with contextlib.suppress(RuntimeError):  # the interpreter is ending, and they end with it
        threading.Thread(target=host.close, name="upx-release", daemon=True).start()


def _closed() -> UpxError:
    return UpxError("this Upscaler is closed", hint="make another one")


def _tile(tile: Tile) -> int | None:
    """0 for automatic, None for off; ParameterError for anything else that is no number of pixels."""
    if tile == "auto":
        return 0
    if tile == "off":
        return None
    if isinstance(tile, int) and not isinstance(tile, bool) and tile > 0:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without types
        return tile
    raise ParameterError(f"tile={tile!r}", hint='"auto", "off" or a number of input pixels')
