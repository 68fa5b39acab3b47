"""The host: wires catalog, environments, weights and workers, and owns their lifetimes."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Self

from upx.assets.disk import full
from upx.catalog import Catalog
from upx.errors import NotReadyError, UnknownBackendError, UnusableWeightsError, WeightsError
from upx.models.shelf import Shelf
from upx.routes import DEFAULT_BACKEND, Request, choose, coerce_parameters
from upx.session import Session
from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from upx.config import Settings
    from upx.routes import Route
    from upx.specs import BackendSpec
    from upx.venvs.inventory import Pruned
    from upx.venvs.venv import Repair, Venv
    from upx.workers.plan import Timeouts

# The backend that opens pickles.
CONVERT = "convert"


class Host:
    """Everything one process needs to run jobs.

    ``on_event`` hears of builds, workers and logs, from any thread. ``timeouts``: None for the usual ones.
    """

    def __init__(
        self,
        settings: Settings,
        on_event: Callable[[object], None] | None = None,
        *,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.settings = settings
        # Never reach out, whatever the settings say: for what is built on the way to something else.
        self.offline = settings.offline
        self._timeouts = timeouts
        self.catalog = Catalog(settings)
        self.envs = EnvBuilder(settings)
        self.on_event = on_event or _ignore
        self.shelf = Shelf(settings, self.catalog, self.envs, self._convert, self.on_event)
        self._sessions: list[Session] = []

    def open(self, request: Request, *, offline: bool = False) -> Session:
        """A session for what ``request`` means; nothing is built or started yet.

        UsageError and its subclasses when the request cannot be met.
        """
        default = self.settings.backend or DEFAULT_BACKEND
        for name in filter(None, (request.backend, request.model)) if request.backend or request.model else (default,):
            self._refuse_broken(name)
        route = self._choose(request, default)
        if route.backend.kind == "utility":
            raise UnknownBackendError(
                f"{route.backend.name} serves upx itself and turns no pictures", hint="upx backends lists those that do"
            )
        session = self._session(route, request, offline=offline)
        self._sessions.append(session)
        return session

    def _session(self, route: Route, request: Request, *, offline: bool) -> Session:
        params = coerce_parameters(route.backend, request.params)
        return Session(
            route,
            request,
            params,
            shelf=self.shelf,
            offline=offline or self.settings.offline,
            timeouts=self._timeouts,
        )

    def _convert(self, source: Path, order: Mapping[str, object], result: Path) -> None:
        """Open a pickle in a worker that lives as long as this takes; UnusableWeightsError says why it was refused."""
        with self.shelf.store.scratch() as folder:
            told = folder / "order.json"
            told.write_text(json.dumps(order), encoding="utf-8")
            request = Request(
                backend=CONVERT, device="cpu", weights=source, params={"order": str(told), "result": str(result)}
            )
            route = self._choose(request, CONVERT)
            try:
                with self._session(route, request, offline=self.offline) as session:
                    session.warm()
            except NotReadyError as error:
                if type(error) is not WeightsError:
                    raise
                words = str(error).removeprefix(f"{route.model.name} cannot be loaded: ")
                if os.strerror(errno.ENOSPC) in words:
                    raise full(self.shelf.store.root, 0, 0) from error
                raise UnusableWeightsError(
                    f"{source.name}: {words}", hint="get weights as safetensors, or from somebody you trust"
                ) from error

    def setup(self, name: str, *, flavour: str = "auto", offline: bool = False) -> Venv:
        """The environment of one backend, alias or model, built if it is absent; NotReadyError says why not."""
        spec = self._buildable(name)
        offline = offline or self.settings.offline
        return self.envs.ensure(spec.env, flavour=flavour, offline=offline, on_progress=self.on_event)

    def repair(self, name: str, *, flavour: str = "auto", offline: bool = False) -> Repair:
        """Check every file of one backend's environment and build it anew where one is damaged."""
        spec = self._buildable(name)
        offline = offline or self.settings.offline
        return self.envs.repair(spec.env, flavour=flavour, offline=offline, on_progress=self.on_event)

    def prune(self, *, unused: bool = False) -> tuple[Pruned, dict[Path, int]]:
        """Remove environments, and copies of workers' code, that nobody needs; the second with their bytes.

        ``unused``: whole ones too, unless a worker uses them.
        """
        from upx.workers.stage import digest, prune_stages

        wanted = [] if unused else self.catalog.backends()
        # Weights alone have no code.
        keep = frozenset(digest(spec.folder, spec.module) for spec in wanted if spec.kind != "weights")
        done = self.envs.prune(self.catalog.envs(), unused=unused)
        return done, prune_stages(self.settings, keep=keep)

    def close(self) -> None:
        """End every session: tied workers end, detached ones stay."""
        while self._sessions:
            self._sessions.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _buildable(self, name: str) -> BackendSpec:
        self._refuse_broken(name)
        spec = self._choose(Request(backend=name), DEFAULT_BACKEND).backend
        if spec.kind == "weights":
            raise NotReadyError(
                f"this version of upx keeps the weights of {name} and has no environment for it",
                hint=f"upx models pull {name} brings the weights; upx backends lists what runs",
            )
        return spec

    def _choose(self, request: Request, default: str) -> Route:
        """The route; an unknown name may be one of a backend whose manifest cannot be used."""
        try:
            return choose(request, self.catalog.backends(), default=default)
        except UnknownBackendError as error:
            if broken := self.catalog.broken():
                error.hint += f"; unusable, and why in upx doctor: {', '.join(broken)}"
            raise

    def _refuse_broken(self, name: str) -> None:
        """Raise what is wrong with the manifest of that name, rather than saying that there is none."""
        if name in self.catalog.broken():
            self.catalog.backend(name)


def _ignore(_event: object) -> None:
    """Report to nobody."""
