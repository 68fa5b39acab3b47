"""What a box knows for its workers: a model's files, precision and parameters, asked by a worker for each load.

The other end of ``upx_protocol.steward``, one thread a worker. Hosts far away name models, never paths.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from upx.assets.find import Finder, Missing
from upx.assets.incoming import unsendable
from upx.assets.licences import require_licence
from upx.assets.obtain import Need
from upx.assets.ready import Readying
from upx.devices import precision_for, share_cores, usable_cores
from upx.errors import LicenceError, ParameterError, UnknownBackendError, UpxError, WeightsError
from upx.routes import coerce_parameters, with_defaults
from upx.serving.taking import Taking, said

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.locks import HeldLock
    from upx.models.shelf import Shelf
    from upx.specs import BackendSpec, ModelSpec, ParameterValue

log = logging.getLogger("upx.serve")

MAX_LINE = 1024 * 1024
# A fetch of gigabytes must not look like a worker that hangs.
STILL_S = 5.0


class Uses:
    """What one worker keeps from eviction: the model that it has loaded, and the one that it was last asked for.

    For one thread.
    """

    def __init__(self) -> None:
        self._asked: HeldLock | None = None
        self._loaded: HeldLock | None = None

    def ask(self, held: HeldLock | None) -> None:
        """Another model is looked for; the loaded one stays until it is found."""
        if self._asked is not None:
            self._asked.close()
        self._asked = held

    @property
    def asking(self) -> bool:
        """Whether the model that is looked for is kept."""
        return self._asked is not None

    def load(self) -> None:
        """The model that was asked for takes the place of the loaded one."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded, self._asked = self._asked, None

    def close(self) -> None:
        """Let go of both."""
        self.ask(None)
        self.load()


class Keeper:
    """Answers for one backend on this machine. ``answer`` may be called from several threads.

    ``take_files``: the owner lets clients send files that are missing; ``taking`` is then what takes them.
    """

    def __init__(
        self,
        spec: BackendSpec,
        shelf: Shelf,
        *,
        site_packages: Path,
        offline: bool,
        accept_licence: bool,
        take_files: bool = False,
    ) -> None:
        self._spec, self._shelf, self._site = spec, shelf, site_packages
        self._offline, self._accept = offline, accept_licence
        self.taking = Taking(shelf) if take_files else None
        # One who waits for a fetch of gigabytes keeps nobody from a model that is here.
        self._locks = {model.name: threading.Lock() for model in spec.models}

    def answer(self, question: Mapping[str, Any], device: str, uses: Uses) -> dict[str, Any]:
        """A load in this machine's terms, or what has to be sent for it; UpxError says why it cannot be.

        ``uses``: of the worker that asks.
        """
        spec = self._spec
        model = self._model(str(question["model"]))
        params = _safe(spec, question["params"])
        try:
            files, sha256 = self._files(model, uses, wanted=str(question["weights"]))
        except LicenceError:
            raise
        except WeightsError as error:
            wanted = self._wanted(model, error)
            if not wanted:
                raise
            log.info("%s: %d files are wanted from a client: %s", model.name, len(wanted), error)
            return {"failure": "input", "message": said(error), "wanted": wanted}
        threads = share_cores(spec, 1, device=device, cores=usable_cores())[1]
        answer = {
            "files": files,
            "weights": sha256,
            "precision": precision_for(spec, str(question["precision"]), device),
            "threads": int(question["threads"]) or threads,
            "params": {**model.options, **with_defaults(spec, params, "load")},
        }
        uses.load()
        return answer

    def _model(self, name: str) -> ModelSpec:
        """The model of exactly that name: who leaves the choice to a box would get another from the next one."""
        for model in self._spec.models:
            if model.name == name:
                return model
        raise UnknownBackendError(
            f"this box has no model {name!r}" if name else "no model was named",
            hint=f"one of {', '.join(each.name for each in self._spec.models)}",
        )

    def _wanted(self, model: ModelSpec, error: WeightsError) -> list[dict[str, Any]]:
        """What clients may send after that error, none where it is about something else; its hint names the way."""
        try:
            found = self._finder().find_all(model)
        except WeightsError:
            # What is here and damaged is the owner's to mend.
            return []
        missing = [each.asset for each in found if isinstance(each, Missing)]
        why = next((said for asset in missing if (said := unsendable(asset))), "")
        if missing and why:
            error.hint = f"{error.hint}; clients cannot send it: {why}"
        elif missing and self.taking is None:
            error.hint = f"there: {error.hint}; or upx worker serve {self._spec.name} --take-files, and clients send it"
        elif self.taking is not None:
            return self.taking.want([Need(self._spec, model, asset) for asset in missing])
        return []

    def _finder(self) -> Finder:
        return Finder(self._shelf.settings, self._spec, site_packages=self._site)

    def _files(self, model: ModelSpec, uses: Uses, *, wanted: str) -> tuple[dict[str, str], str]:
        spec, settings, name = self._spec, self._shelf.settings, model.name
        with self._locks[name]:
            require_licence(model, settings, accept_now=self._accept)
            finder = self._finder()
            # What is being served is not evicted.
            uses.ask(finder.store.use(name))
            found = Readying(spec, model, self._shelf.obtainer, self._offline).files(finder)
            if not uses.asking:
                # Nothing of it was here before.
                uses.ask(finder.store.use(name))
        if wanted and wanted != found.sha256:
            raise WeightsError(
                f"this box has other weights of {name}: {found.sha256[:12]}, the host has {wanted[:12]}",
                hint=f"upx models import them here too, or upx models pull {name}",
            )
        return {role: str(path) for role, path in found.paths.items()}, found.sha256


def _safe(spec: BackendSpec, given: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """A host's load parameters; ParameterError for one that names something on this machine.

    What the model itself brings is not for a host to say, and is passed over.
    """
    own = {parameter.name: parameter for parameter in spec.parameters if parameter.applies == "load"}
    known = coerce_parameters(spec, {name: value for name, value in given.items() if name in own})
    for name, value in known.items():
        parameter = own[name]
        if parameter.kind == "str" and not parameter.choices and value != parameter.default:
            raise ParameterError(f"{name} is not for hosts of other machines", hint=f"leave --set {name} out")
    return known


def _question(line: bytes) -> dict[str, Any]:
    """What a worker asks; ValueError for a line that is no question, whatever else it is."""
    try:
        question: Any = json.loads(line)
        given: object = question["params"]
    except (RecursionError, TypeError, KeyError) as error:
        raise ValueError("no question") from error
    if not isinstance(given, dict):
        raise ValueError("no question")  # noqa: TRY004  one error for whatever is wrong with a line
    return cast("dict[str, Any]", question)


class Line:
    """A worker's questions, answered on a thread of their own until its end of the socket is closed.

    A line that is no question ends it: what writes such a thing is no worker of ours any more.
    """

    def __init__(self, keeper: Keeper, device: str) -> None:
        self._keeper, self._device, self._uses = keeper, device, Uses()
        self._ours, self.theirs = socket.socketpair()
        self._saying = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="upx-keeper", daemon=True)

    def start(self) -> None:
        """Begin to answer; ``theirs`` is the worker's alone from here on."""
        self.theirs.close()
        self._thread.start()

    def _serve(self) -> None:
        try:
            with self._ours, self._ours.makefile("rb") as lines, suppress(OSError, ValueError):
                while line := lines.readline(MAX_LINE):
                    self._say(self._answered(_question(line)))
        finally:
            self._uses.close()

    def _answered(self, question: dict[str, Any]) -> dict[str, Any]:
        done = threading.Event()
        threading.Thread(target=self._still, args=(done,), name="upx-keeper-still", daemon=True).start()
        try:
            return self._keeper.answer(question, self._device, self._uses)
        except UpxError as error:
            log.warning("%s is not loaded: %s", question.get("model"), error)
            return {"failure": "input", "message": said(error)}
        except Exception as error:
            log.exception("%s is not loaded", question.get("model"))
            return {"failure": "transient", "message": f"{type(error).__name__}: {error}"}
        finally:
            done.set()

    def _still(self, done: threading.Event) -> None:
        while not done.wait(STILL_S):
            self._say({"progress": ["fetching", 0, 0]})

    def _say(self, answer: dict[str, Any]) -> None:
        with self._saying, suppress(OSError):
            self._ours.sendall(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        """Give up a line that was never used."""
        for end in (self._ours, self.theirs):
            end.close()
