"""The tree of errors is what its drawing says, and every error off the wire has a class here."""

from __future__ import annotations

import inspect
import re

import upx_protocol.errors
from upx import errors
from upx.errors import UpxError


def classes():
    return {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, UpxError)}


def drawn():
    """(name, depth, exit code or None) of each line of the drawing."""
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^ {4}([│ ├└─]*)(\w+Error)\s+(\d+)?", line):
            yield match[2], len(match[1]) // 3, match[3] and int(match[3])


def test_the_drawing_shows_every_class_below_its_parent_with_its_exit_code():
    tree, stack = {}, []
    for name, depth, code in drawn():
        stack = [*stack[:depth], name]
        tree[name] = stack[depth - 1] if depth else None
        cls = classes()[name]
        assert code is None or cls.exit_code == code, name
        if depth:
            assert cls.__bases__[0].__name__ == tree[name], name
    assert set(tree) == set(classes())


def test_every_class_that_a_worker_can_send_has_one_here():
    sent = {
        cls.failure
        for cls in vars(upx_protocol.errors).values()
        if inspect.isclass(cls) and issubclass(cls, upx_protocol.errors.UpscalerError)
    }
    assert sent <= {cls.wire_code for cls in classes().values()}


def test_a_code_for_machines_is_the_name_without_error():
    assert errors.HashMismatchError("x").code == "HashMismatch"
    assert errors.HashMismatchError("x", hint="y").hint == "y"
