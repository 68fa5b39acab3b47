"""A session: one route made ready, with its workers, for any number of jobs."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from upx.assets.find import Finder
from upx.assets.licences import require_licence
from upx.assets.ready import Readying
from upx.assets.supply import ModelSupply
from upx.devices import precision_for, resolve_device, share_cores, usable_cores
from upx.errors import NotReadyError, UsageError
from upx.routes import with_defaults
from upx.trace import PictureTrace, measured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from upx.jobs import JobOptions
    from upx.locks import HeldLock
    from upx.media.targets import Target
    from upx.models.shelf import Shelf
    from upx.pipeline.job import Source
    from upx.result import JobProgress, Result
    from upx.routes import Request, Route
    from upx.specs import Capabilities, ParameterValue
    from upx.trace import Tracer
    from upx.workers.far import FarSite
    from upx.workers.plan import LoadPlan, Timeouts, WorkerPlan
    from upx.workers.pool import WorkerPool

_JOBS = itertools.count(1)


class Session:
    """One backend and model with its workers. Thread-safe: several ``run`` calls overlap."""

    def __init__(
        self,
        route: Route,
        request: Request,
        params: Mapping[str, ParameterValue],
        *,
        shelf: Shelf,
        offline: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.route = route
        self._request = request
        self._params = params
        self._shelf = shelf
        self._settings = shelf.settings
        self._offline = offline
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._plan: LoadPlan | None = None
        self._sites: tuple[FarSite, ...] = ()
        self._pool: WorkerPool | None = None
        self._used: HeldLock | None = None
        self._closed = False

    @property
    def model_sha256(self) -> str:
        """Digest of the weights; prepares the session if nobody has."""
        return self.prepare().weights

    def prepare(self) -> LoadPlan:
        """Build the environment if it is absent, find and verify the weights, stage the code.

        NotReadyError and its subclasses before anything is computed; UsageError for a device or precision that
        this backend or machine does not have.
        """
        with self._lock:
            if self._plan is None:
                local = True
                if self._request.on:
                    # ZeroMQ and numpy load in a third of a second, which most commands need not wait for.
                    from upx.remote.sites import places

                    where = places(self._request.on, self.route.backend.name, self._settings)
                    local, self._sites = where.local, where.sites
                self._plan = self._prepared() if local else self._far_plan()
            return self._plan

    def start(self) -> WorkerPool:
        """Begin to adopt or spawn the first worker, without waiting for it."""
        plan = self.prepare()
        with self._lock:
            if self._closed:
                raise UsageError("this session is closed", hint="open another one")
            if self._pool is None:
                from upx.workers.plan import Timeouts
                from upx.workers.pool import WorkerPool

                timeouts = self._timeouts or Timeouts()
                self._pool = WorkerPool(
                    plan,
                    self._settings,
                    on_event=self._shelf.on_event,
                    timeouts=timeouts,
                    sites=self._sites,
                    precision=self._request.precision,
                )
                self._pool.start()
            return self._pool

    def warm(self, *, timeout: float = 600.0) -> Capabilities:
        """Wait until a worker holds the model; WorkerError and its subclasses say why none does."""
        return self.start().ready(timeout)

    def run(
        self,
        source: Source,
        target: Target,
        options: JobOptions,
        *,
        on_progress: Callable[[JobProgress], None] | None = None,
        cancel: threading.Event | None = None,
        tracer: Tracer | None = None,
    ) -> Result:
        """Enlarge one picture.

        ``source``: path, bytes, Pillow picture or array. ``target``: the path to write, a binary stream, or None to
        get back what the source was. ``tracer`` records what is done when. Raises UpxError; CancelledError once
        ``cancel`` is set. On failure nothing is left at ``target``.
        """
        from upx.pipeline.job import Job
        from upx.pipeline.run import run_job

        pool, colour = self.start(), self.route.backend.colour
        params = with_defaults(self.route.backend, self._params, "job")
        fix = "none" if colour is None else str(params[colour.parameter])
        number = next(_JOBS)
        job = Job(
            number=number,
            route=self.route,
            model_sha256=self.model_sha256,
            params=params if colour is None else {**params, colour.parameter: "none"},
            given=dict(self._params),
            options=options,
            memory=self._settings.state_dir / "tiles.json",
            scratch=self._settings.cache_dir / "scratch",
            colour_fix=fix,
            precision=self._request.precision,
            trace=None if tracer is None else PictureTrace(tracer, number),
        )
        name = str(source) if isinstance(source, Path) else type(source).__name__
        with measured(tracer, "picture", picture=number, input=name, model=self.route.model.name):
            return run_job(job, pool, source, target, on_progress=on_progress, cancel=cancel)

    def close(self) -> None:
        """End the session: tied workers end, detached ones stay."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            used, self._used = self._used, None
        if pool is not None:
            pool.close()
        if used is not None:
            used.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _far_plan(self) -> LoadPlan:
        """What boxes are to load; nothing of it is needed here but weights that the user named."""
        from upx.workers.plan import LoadPlan

        spec, model, request = self.route.backend, self.route.model, self._request
        weights = ""
        if request.weights is not None:
            finder = Finder(self._settings, spec, weights=request.weights)
            weights = Readying(spec, model, self._shelf.obtainer, offline=True).files(finder).sha256
        return LoadPlan(
            backend=spec.name,
            model=model.name,
            weights=weights,
            precision=request.precision,
            scale=model.scale,
            params={**model.options, **with_defaults(spec, self._params, "load")},
            workers=0,
            supply=self._supply(),
        )

    def _supply(self) -> ModelSupply:
        """What boxes that lack it may be sent of the model."""
        spec = self.route.backend
        return ModelSupply(
            self.route.model,
            self._settings,
            lambda: self._shelf.finder(spec),
            accept=self._request.accept_licence,
        )

    def _prepared(self) -> WorkerPlan:
        from upx.venvs.venv import use_lock_path
        from upx.workers.plan import WorkerPlan
        from upx.workers.stage import stage

        spec, model, request = self.route.backend, self.route.model, self._request
        if spec.kind == "weights":
            raise NotReadyError(
                f"this version of upx keeps the weights of {spec.name} and cannot run them yet",
                hint="upx backends lists what runs",
            )
        device = resolve_device(request.device, spec.devices, environ=self._settings.child_env)
        precision = precision_for(spec, request.precision, device.name)
        require_licence(model, self._settings, accept_now=request.accept_licence)
        finder = Finder(self._settings, spec, weights=request.weights)
        # Before they are found: what is being used is not evicted between the look and the load.
        self._used = self._used or finder.store.use(model.name)
        readying = Readying(spec, model, self._shelf.obtainer, self._offline)
        readying.bring_remote(finder)
        self._used = self._used or finder.store.use(model.name)
        flavour = "auto" if device.name.startswith("cuda") or spec.env.cpu_lock is None else "cpu"
        venv = self._shelf.envs.ensure(
            spec.env, flavour=flavour, offline=self._offline, on_progress=self._shelf.on_event
        )
        finder = Finder(self._settings, spec, weights=request.weights, site_packages=venv.site_packages)
        files = readying.files(finder)
        self._used = self._used or finder.store.use(model.name)
        staged = stage(spec.folder, spec.module, self._settings)
        workers, threads = share_cores(spec, request.workers, device=device.name, cores=usable_cores())
        return WorkerPlan(
            backend=spec.name,
            module=f"{spec.module}.worker",
            python=venv.python,
            stage=staged.folder,
            build=staged.digest,
            env=venv.fingerprint,
            env_lock=use_lock_path(venv.folder),
            environ={**self._settings.child_env, **spec.environ},
            model=model.name,
            files={role: str(path) for role, path in files.paths.items()},
            weights=files.sha256,
            device=device.name,
            device_identity=device.identity,
            precision=precision,
            scale=model.scale,
            threads=threads,
            params={**model.options, **with_defaults(spec, self._params, "load")},
            workers=workers,
            keep_alive=request.keep_alive,
            supply=self._supply() if self._sites else None,
        )
