"""What a batch may ask for, where hosts of other machines are served. Pure; looked at before anything is computed.

Only parameters that the worker was told of, with values that fit; no more results at once than it can hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple

from upx_protocol.actions import Failure
from upx_protocol.arrays import ITEM_SIZES

if TYPE_CHECKING:
    from upx_protocol.messages import Scalar, Upscale
    from upx_protocol.options import WorkerOptions

#: Bytes of the results of one batch; a lone tile is computed whatever it becomes.
MOST_RESULTS = 1024 * 1024 * 1024
#: A name is shown, and its length is its host's choice.
SHOWN = 32
#: A bool is an int for Python, and for nobody else.
TYPES: Mapping[str, Tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


@dataclass(frozen=True)
class Parameter:
    """What a job parameter may be. ``choices``: empty for any. Text without choices is its default and nothing else.

    Free text could name a file of this machine.
    """

    kind: str
    default: Scalar
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    choices: Sequence[Scalar] = ()

    def misfit(self, value: Scalar) -> str:
        """What is wrong with a value; empty for nothing."""
        if type(value) not in TYPES[self.kind] or (isinstance(value, float) and not math.isfinite(value)):
            return f"is no {self.kind}"
        if self.choices and value not in self.choices:
            return f"is none of {', '.join(map(str, self.choices))}"
        if isinstance(value, str):
            return "is not for hosts of other machines" if not self.choices and value != self.default else ""
        number = float(value or 0)
        low, high = self.minimum, self.maximum
        beyond = (low is not None and number < low) or (high is not None and number > high)
        return "is out of range" if beyond else ""


class Terms:
    """``parameters``: by name, None for whatever a host says; ``most_results``: bytes, 0 for any."""

    def __init__(self, parameters: Optional[Mapping[str, Parameter]] = None, most_results: int = 0) -> None:
        self._parameters, self._most_results = parameters, most_results

    @classmethod
    def of(cls, options: WorkerOptions) -> Terms:
        """As the worker was told at its birth."""
        given = options.parameters
        known = {name: Parameter(**facts) for name, facts in given.items()} if given is not None else None
        return cls(known, MOST_RESULTS if options.serves else 0)

    def refusal(self, request: Upscale, scale: int) -> Optional[Failure]:
        """Why a batch is not computed; None where it is."""
        why = self._unfit(request.params)
        if why:
            return Failure("input", False, why)
        if self._most_results and len(request.bufs) > 1 and result_bytes(request, scale) > self._most_results:
            return Failure("oom", True, f"results of more than {self._most_results} bytes at once")
        return None

    def _unfit(self, params: Mapping[str, Any]) -> str:
        known = self._parameters
        if known is None:
            return ""
        for name, value in params.items():
            misfit = known[name].misfit(value) if name in known else "is no parameter here"
            if misfit:
                return f"{name[:SHOWN]} {misfit}"
        return ""


def result_bytes(request: Upscale, scale: int) -> int:
    """Bytes of all results of a batch."""
    height, width = request.bufs[0].shape[:2]
    return len(request.bufs) * height * width * scale * scale * 3 * ITEM_SIZES[request.out_dtype]
