"""Every setting, option, message kind, error class and manifest key stands in a page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from commands import page

import upx.errors
from upx import config
from upx.errors import UpxError
from upx.manifest import backend, pulling

ROOT = Path(__file__).resolve().parents[2]


def _page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _classes() -> dict[str, type[UpxError]]:
    """The error classes by name."""
    found = vars(upx.errors).items()
    return {name: value for name, value in found if inspect.isclass(value) and issubclass(value, UpxError)}


def test_every_setting_stands_in_the_readme_and_no_other() -> None:
    read = set(re.findall(r"UPX_[A-Z_]+", inspect.getsource(config)))
    assert len(read) >= 7
    assert set(re.findall(r"^\| `(UPX_[A-Z_]+)`", _page("README.md"), re.MULTILINE)) == read


def test_the_page_of_commands_says_what_the_command_says() -> None:
    assert _page("docs/commands.md") == page(), "run scripts/make-commands"


def test_every_exit_code_stands_in_the_readme() -> None:
    (sentence,) = re.findall(r"Exit codes: (.*?)\. \[", _page("README.md"))
    named = {int(part.split()[0]) for part in sentence.split(", ")}
    assert {cls.exit_code for cls in _classes().values()} | {0, 3} == named


def test_the_tree_drawn_in_errors_is_the_tree_of_classes() -> None:
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (upx.errors.__doc__ or "").splitlines():
        if match := re.match(r"([\s│├└─]*)(\w+Error)\b", line):
            depth, name = len(match[1]), match[2]
            above = [item for item in above if item[0] < depth]
            drawn[name] = above[-1][1] if above else ""
            above.append((depth, name))
    assert drawn.pop("UpxError") == ""
    assert drawn == {name: cls.__bases__[0].__name__ for name, cls in _classes().items() if cls is not UpxError}


def test_the_numbers_drawn_in_the_tree_are_the_exit_codes() -> None:
    drawn = re.findall(r"^[\s│├└─]*(\w+Error) +(\d+) ", upx.errors.__doc__ or "", re.MULTILINE)
    assert len(drawn) >= 8
    assert {name: int(code) for name, code in drawn} == {name: _classes()[name].exit_code for name, _ in drawn}


def test_every_error_class_stands_in_its_page_with_its_exit_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+)", _page("docs/errors.md"), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {name: cls.exit_code for name, cls in _classes().items()}


def test_every_manifest_key_stands_in_the_page_on_backends() -> None:
    text = _page("backends/README.md")
    tables = backend.keys()
    assert len(tables) >= 6
    # A table is named as TOML writes it, a key by itself.
    named = {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[a-z0-9_]+", code)}
    assert not [f"{table}.{key}" for table, keys in tables.items() for key in keys if key not in named]


def test_every_key_of_a_manifest_of_weights_stands_in_the_readme() -> None:
    text = _page("README.md").partition("## Weights")[2]
    named = set(re.findall(r"[a-z0-9_]+", text))
    assert not [key for keys in pulling.keys().values() for key in keys if key not in named]


def test_every_message_kind_stands_in_the_specification() -> None:
    from upx_protocol.messages import KINDS

    text = _page("protocol/README.md")
    assert len(KINDS) >= 15
    assert not {kind for kind in KINDS if f"`{kind}`" not in text}


def test_every_metric_stands_in_the_page_on_boxes_with_its_kind_and_no_other() -> None:
    from upx.serving.metrics import INFO, METRICS

    rows = re.findall(r"^\| `(upx_\w+)` \| (\w+) \|", _page("docs/box.md"), re.MULTILINE)
    assert rows == [(metric.name, metric.kind) for metric in (*METRICS, INFO)]
