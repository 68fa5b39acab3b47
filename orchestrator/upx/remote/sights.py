"""The workers of this machine and of boxes, seen together: what each says of itself, and who does not answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from upx.remote.keys import KeyRing, z85
from upx.workers import registry
from upx.workers.watch import FAR_S, Answer, Target, Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from upx.config import Settings
    from upx.errors import UpxError
    from upx.remote.boxes import Box
    from upx.workers.registry import WorkerInfo
    from upx_protocol.messages import Pong


@dataclass(frozen=True, slots=True)
class Sight:
    """One worker. ``info``: its entry, of one here; ``box``: the name of its machine, empty here.

    ``error``: why there is no ``pong``; neither while it may still come.
    """

    name: str
    backend: str
    box: str = ""
    info: WorkerInfo | None = None
    pong: Pong | None = None
    error: UpxError | None = None


class Lookout:
    """Looks at workers again and again. ``here``: at those of this machine too. One thread; a context manager."""

    def __init__(self, settings: Settings, boxes: Sequence[Box], *, here: bool) -> None:
        self._settings, self._here = settings, here
        self._boxes = {box.name: box for box in boxes}
        self._ports: dict[str, tuple[int, ...]] = {box.name: (box.port,) for box in boxes}
        self._backends = {box.name: box.backend for box in boxes}
        self._keys = KeyRing(settings).client() if boxes else None
        self._watcher = Watcher(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def look(self, *, most: float = FAR_S) -> list[Sight]:
        """Every worker, those here first; ``most`` seconds are waited for answers, in all.

        A box is a row as soon as it is known, and one for each of its workers once it has told of them.
        """
        infos = registry.list_workers(self._settings) if self._here else []
        near = [Target.of(info) for info in infos if not info.starting]
        until = time.monotonic() + most
        answers = self._watcher.look([*near, *self._far()], most=most)
        if self._learn(answers):
            answers = self._watcher.look([*near, *self._far()], most=max(0.0, until - time.monotonic()))
        here = [self._near(info, answers.get(Target.of(info), Answer())) for info in infos]
        there = [self._there(box, target, answers[target]) for target, box in self._far().items()]
        return [*(each for each in here if each is not None), *there]

    def _far(self) -> dict[Target, str]:
        """Every worker of every box that is known by now, and whose it is."""
        return {
            Target(f"{name}:{port}", box.at(port), z85(box.key), name, self._keys): name
            for name, box in self._boxes.items()
            for port in self._ports[name]
        }

    def _learn(self, answers: dict[Target, Answer]) -> bool:
        """Take in what boxes say of their workers; whether there are any that were not asked yet."""
        before = dict(self._ports)
        for target, name in self._far().items():
            answer = answers[target]
            if answer.backend:
                self._backends[name] = answer.backend
            # The first tells of the others; none may add to what that says.
            if answer.ports and target.endpoint == self._boxes[name].endpoint:
                own = self._boxes[name].port
                self._ports[name] = (own, *(port for port in answer.ports if port != own))
        return self._ports != before

    def _near(self, info: WorkerInfo, answer: Answer) -> Sight | None:
        """A worker of this machine, which may be starting still; None where it has ended meanwhile."""
        if answer.error is not None:
            again = registry.read(info.path)
            if again is None or not again.alive:
                return None
        return Sight(info.name, info.backend, info=info, pong=answer.pong, error=answer.error)

    def _there(self, box: str, target: Target, answer: Answer) -> Sight:
        return Sight(target.name, self._backends[box], box, pong=answer.pong, error=answer.error)

    def close(self) -> None:
        """Close every connection."""
        self._watcher.close()
