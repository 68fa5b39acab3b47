"""The host: wires catalog, environments, weights and workers, and owns their lifetimes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from upx.catalog import Catalog
from upx.errors import UnknownBackendError
from upx.routes import DEFAULT_BACKEND, Request, choose, coerce_parameters
from upx.session import Session
from upx.venvs.builder import EnvBuilder

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from upx.config import Settings
    from upx.routes import Route
    from upx.specs import BackendSpec
    from upx.venvs.venv import Repair, Venv
    from upx.workers.plan import Timeouts


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
        self._timeouts = timeouts
        self.catalog = Catalog(settings)
        self.envs = EnvBuilder(settings)
        self.on_event = on_event or _ignore
        self._sessions: list[Session] = []

    def open(self, request: Request, *, offline: bool = False) -> Session:
        """A session for what ``request`` means; nothing is built or started yet.

        UsageError and its subclasses when the request cannot be met.
        """
        default = self.settings.backend or DEFAULT_BACKEND
        for name in filter(None, (request.backend, request.model)) if request.backend or request.model else (default,):
            self._refuse_broken(name)
        route = self._choose(request, default)
        params = coerce_parameters(route.backend, request.params)
        session = Session(
            route,
            request,
            params,
            settings=self.settings,
            envs=self.envs,
            on_event=self.on_event,
            offline=offline or self.settings.offline,
            timeouts=self._timeouts,
        )
        self._sessions.append(session)
        return session

    def setup(self, name: str, *, flavour: str = "auto", offline: bool = False) -> Venv:
        """The environment of one backend, alias or model, built if it is absent; NotReadyError says why not."""
        spec = self._backend(name)
        offline = offline or self.settings.offline
        return self.envs.ensure(spec.env, flavour=flavour, offline=offline, on_progress=self.on_event)

    def repair(self, name: str, *, flavour: str = "auto", offline: bool = False) -> Repair:
        """Check every file of one backend's environment and build it anew where one is damaged."""
        spec = self._backend(name)
        offline = offline or self.settings.offline
        return self.envs.repair(spec.env, flavour=flavour, offline=offline, on_progress=self.on_event)

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

    def _backend(self, name: str) -> BackendSpec:
        self._refuse_broken(name)
        return self._choose(Request(backend=name), DEFAULT_BACKEND).backend

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
