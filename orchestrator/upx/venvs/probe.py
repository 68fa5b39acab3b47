"""Ask a new environment's own interpreter what it is and whether its packages import."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upx.errors import EnvBuildError
from upx.venvs.fingerprint import Interpreter
from upx.venvs.process import Surroundings, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from upx.specs import EnvSpec

# A first import of torch compiles 200 MB of sources to bytecode.
TIMEOUT_S = 600.0
_TOKEN = "upx-probe:"  # noqa: S105 - marks the answer's line, whatever the imports print
_PROGRAM = f"""
import importlib, importlib.metadata, json, platform, sys
answer = {{"failed": None}}
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except BaseException as error:
        answer["failed"] = [module, type(error).__name__ + ": " + str(error)]
        break
answer["implementation"] = sys.implementation.name
answer["version"] = platform.python_version()
answer["libc"] = "".join(platform.libc_ver())
answer["versions"] = {{d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}}
print("\\n{_TOKEN}" + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the interpreter said of itself; ``versions``: package -> version."""

    interpreter: Interpreter
    versions: Mapping[str, str]


def probe(python: Path, spec: EnvSpec, env: Mapping[str, str], *, keep: tuple[int, ...] = ()) -> Probed:
    """Import ``spec.imports`` with ``python``; EnvBuildError names the one that fails.

    ``keep``: descriptors that it holds open, because it writes bytecode into the environment.
    """
    # -I: neither the working folder nor PYTHON* variables can put another module in front.
    command = [str(python), "-I", "-c", _PROGRAM, *spec.imports]
    outcome = run(command, Surroundings(env, python.parent, keep), timeout=TIMEOUT_S)
    answers = [line for line in outcome.log.splitlines() if line.startswith(_TOKEN)]
    if outcome.code != 0 or not answers:
        raise _broken(spec, f"its interpreter ended with {outcome.code}", outcome.log)
    answer: dict[str, Any] = json.loads(answers[-1][len(_TOKEN) :])
    if answer["failed"]:
        module, reason = answer["failed"]
        raise _broken(spec, f"`import {module}` fails: {reason}", outcome.log)
    found = Interpreter(answer["implementation"], answer["version"], answer["libc"])
    return Probed(found, answer["versions"])


def _broken(spec: EnvSpec, reason: str, log: str) -> EnvBuildError:
    hint = f"a system library may be missing; `upx setup {spec.name} -v` shows the whole output"
    return EnvBuildError(f"{spec.name} was installed, but {reason}", hint=hint, log=log)
