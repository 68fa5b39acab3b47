"""A batch of pictures: two at a time, told in the order they were given, one bad one stops no other."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from upx.cli._app import unexpected
from upx.cli._console import silence_stdout, stdout_error
from upx.cli._targets import make_folder
from upx.errors import (
    CancelledError,
    InputError,
    NotReadyError,
    OutOfMemoryError,
    OutputError,
    OutputExistsError,
    UpxError,
    UsageError,
    WorkerError,
)
from upx.futures import wait_for
from upx.result import ErrorRecord, Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from upx.cli._console import Console
    from upx.cli._progress import Display
    from upx.jobs import JobOptions
    from upx.naming import Plan
    from upx.session import Session
    from upx.trace import Tracer

# While one is computed, the next is read and the last is written.
AT_A_TIME = 2
CANCEL_S = 10.0
SOME_FAILED, ALL_FAILED = 3, 4
_SHARED_CODES = (UsageError, NotReadyError, OutOfMemoryError, WorkerError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One picture's end."""

    record: Record
    error: UpxError | None = None


def exit_code(errors: Sequence[UpxError | None]) -> int:
    """The command's exit code for its pictures' errors, None for each that is done or was skipped."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return 0
    if any(isinstance(error, CancelledError) for error in failed):
        return CancelledError.exit_code
    if len(failed) < len(errors):
        return SOME_FAILED
    for kind in _SHARED_CODES:
        if all(isinstance(error, kind) for error in failed):
            return kind.exit_code
    # A fault of our own is never passed off as the pictures'.
    return UpxError.exit_code if all(type(error) is UpxError for error in failed) else ALL_FAILED


class Batch:
    """Runs plans and tells their outcomes; ``session`` is None where no input can be read at all."""

    def __init__(
        self,
        session: Session | None,
        options: JobOptions,
        console: Console,
        display: Display,
        *,
        stdin: bytes = b"",
        tracer: Tracer | None = None,
    ) -> None:
        self._session = session
        self._options = options
        self._console = console
        self._display = display
        self._stdin = stdin
        self._tracer = tracer
        self._cancel = threading.Event()

    def run(self, plans: Sequence[Plan]) -> int:
        """Do them all; the exit code. On an interrupt: cancel, tell what is whole, and pass it on."""
        began = time.monotonic()
        pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="upx-picture")
        futures: list[Future[Outcome]] = []
        told: list[Outcome] = []
        try:
            for number, plan in enumerate(plans):
                futures.append(pool.submit(self._do, number, plan))
            for future in futures:
                told.append(outcome := wait_for(future))
                self._tell(outcome)
        except BaseException:
            self._cancel.set()
            pool.shutdown(wait=False, cancel_futures=True)
            # wait() takes a future that was cancelled before it began for one that still runs.
            wait([future for future in futures if not future.cancelled()], timeout=CANCEL_S)
            self._tell_whole(futures[len(told) :])
            raise
        pool.shutdown()
        code = exit_code([outcome.error for outcome in told])
        self._summary(told, time.monotonic() - began, code)
        return code

    def _do(self, number: int, plan: Plan) -> Outcome:
        began = time.monotonic()
        try:
            return Outcome(self._process(number, plan))
        except OutputExistsError as error:
            if self._options.on_exists == "skip":  # somebody else has written it meanwhile
                return Outcome(self._record(plan, "skipped"))
            return self._failed(plan, error, time.monotonic() - began)
        except UpxError as error:
            return self._failed(plan, error, time.monotonic() - began)
        except Exception as error:  # noqa: BLE001  # one picture's surprise must not end the others
            return self._failed(plan, unexpected(error), time.monotonic() - began)
        finally:
            self._display.finish(number)

    def _process(self, number: int, plan: Plan) -> Record:
        if plan.input.error is not None:
            raise plan.input.error
        if plan.skip:
            return self._record(plan, "skipped")
        if self._session is None:
            raise InputError(f"{plan.input.name} cannot be read", hint="check the path")
        make_folder(plan)
        name = plan.input.name
        result = self._session.run(
            self._stdin if plan.input.source is None else plan.input.source,
            sys.stdout.buffer if plan.target is None else plan.target,
            replace(self._options, format=plan.format),
            on_progress=lambda progress: self._display.progress(number, name, progress),
            cancel=self._cancel,
            tracer=self._tracer,
        )
        if result.error is not None:
            raise result.error
        return replace(result.record, input=name)

    def _failed(self, plan: Plan, error: UpxError, seconds: float) -> Outcome:
        if plan.target is None and isinstance(error, OutputError) and isinstance(error.__cause__, OSError):
            silence_stdout()
            error = stdout_error(error.__cause__)
        record = replace(self._record(plan, "failed"), error=ErrorRecord.of(error), output=None)
        return Outcome(replace(record, seconds=round(seconds, 4)), error)

    def _record(self, plan: Plan, status: str) -> Record:
        record = Record(
            input=plan.input.name,
            output=None if plan.target is None else str(plan.target),
            status="skipped" if status == "skipped" else "failed",
            seed=self._options.seed,
        )
        if self._session is None:
            return record
        route = self._session.route
        return replace(
            record, backend=route.backend.name, model=route.model.name, scale=route.model.scale**route.passes
        )

    def _tell(self, outcome: Outcome) -> None:
        record, error = outcome.record, outcome.error
        if error is not None:
            self._console.failure(error, about=record.input)
            if type(error) is UpxError and error.__cause__ is not None:  # a fault of our own
                self._console.traceback(error.__cause__)
        for warning in record.warnings:
            self._console.note(f"upx: {record.input}: {warning}")
        if record.status == "skipped":
            self._console.note(f"upx: {record.input}: skipped, {record.output} exists")
        if self._console.as_json:
            self._console.results(record)
        elif record.output is not None:
            self._console.line(record.output)

    def _tell_whole(self, futures: Sequence[Future[Outcome]]) -> None:
        for future in futures:
            if future.done() and not future.cancelled() and future.result().error is None:
                self._tell(future.result())

    def _summary(self, told: Sequence[Outcome], seconds: float, code: int) -> None:
        counts = {
            status: sum(each.record.status == status for each in told) for status in ("done", "skipped", "failed")
        }
        if self._console.as_json:
            from upx.cli._results import Summary

            self._console.results(Summary(**counts, seconds=round(seconds, 3), exit_code=code))
        elif len(told) > 1:
            words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            self._console.note(f"upx: {words} in {seconds:.1f} s")
