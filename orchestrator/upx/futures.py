"""Pictures in progress: the future of one, and the results of many in the order they were given."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future, InvalidStateError, wait
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from upx.errors import CancelledError, UpxError
from upx.result import ErrorRecord, Record, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
WAKE_S = 0.2


class JobFuture(Future[Result]):
    """A picture in progress. ``cancel()`` stops it even when it has begun; its tiles are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    def cancel(self) -> bool:
        """Stop the job; False when it is already done."""
        cancelled = super().cancel()
        if cancelled:
            self.stop.set()
        return cancelled

    def settle(self, *, result: Result | None = None, error: BaseException | None = None) -> None:
        """Complete it, unless its owner has cancelled it at the same moment."""
        try:
            if error is not None:
                self.set_exception(error)
            elif result is not None:
                self.set_result(result)
        except InvalidStateError:
            pass  # cancelled meanwhile: nobody waits for it

    def wait(self) -> Result:
        """The result, awaited by a caller who gives up with it: an interrupt cancels the job."""
        try:
            return wait_for(self)
        except FutureCancelledError as error:
            raise cancelled_error() from error
        except BaseException:
            self.cancel()
            raise


def wait_for(future: Future[T], *, timeout: float | None = None) -> T:
    """The future's result; TimeoutError after ``timeout`` seconds.

    A signal that comes in the moment before a thread blocks is noticed when it wakes, which may be never: so it wakes
    now and then, and Ctrl-C is never lost.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while not future.done():
        left = WAKE_S if deadline is None else min(WAKE_S, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        wait([future], timeout=left)
    return future.result()


def results(pictures: Iterable[T], submit: Callable[[T], JobFuture], *, ahead: int) -> Iterator[Result]:
    """Results in input order, ``ahead`` pictures begun while one is waited for.

    A failed picture's result carries its error. What ``pictures`` raises comes after the results of what it gave
    before. Leaving the loop cancels what is begun.
    """
    waiting: deque[tuple[T, JobFuture]] = deque()
    items = _Ahead(pictures)
    try:
        while True:
            while len(waiting) <= ahead and items.more():
                item = items.take()
                waiting.append((item, submit(item)))
            if not waiting:
                items.end()
                return
            picture, future = waiting.popleft()
            yield _outcome(picture, future)
    finally:
        for _, future in waiting:
            future.cancel()


def cancelled_error() -> CancelledError:
    """What a caller sees of a job that somebody else has cancelled."""
    return CancelledError("the picture was cancelled", hint="its Upscaler was closed, or its future cancelled")


def _outcome(picture: object, future: JobFuture) -> Result:
    """The result of one item of a batch, whether it went well or not."""
    try:
        return wait_for(future)
    except UpxError as raised:
        error = raised
    except FutureCancelledError:
        error = cancelled_error()
    name = str(picture) if isinstance(picture, str | Path) else type(picture).__name__
    return Result(None, Record(input=name, output=None, status="failed", error=ErrorRecord.of(error)), error)


class _Ahead(Generic[T]):
    """An iterator that is read ahead: whether it gives more is known first, what it raised comes last."""

    def __init__(self, items: Iterable[T]) -> None:
        self._source = iter(items)
        self._next: list[T] = []
        self._error: Exception | None = None
        self._ended = False

    def more(self) -> bool:
        """Whether there is another one."""
        if not self._next and not self._ended:
            try:
                self._next.append(next(self._source))
            except StopIteration:
                self._ended = True
            except Exception as error:  # noqa: BLE001  # the caller's own; raised by end()
                self._ended, self._error = True, error
        return bool(self._next)

    def take(self) -> T:
        """The next one."""
        return self._next.pop()

    def end(self) -> None:
        """Raise what ended it."""
        if self._error is not None:
            raise self._error
