"""What a box is installed with names only verbs and options that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from commands import help_of, verbs

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "scripts" / "box" / "upx-box.service").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "scripts" / "box" / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "box.md").read_text(encoding="utf-8")
SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Other machines")[2].partition("\n## ")[0]


def settings() -> dict[str, str]:
    """The unit's lines, the last of each name."""
    lines = [line for line in UNIT.splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def unit_command() -> list[str]:
    program, *words = shlex.split(settings()["ExecStart"])
    assert Path(program).name == "upx"
    return words


def container_command() -> list[str]:
    (text,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return json.loads(text)


def shown_commands(text: str) -> list[list[str]]:
    """What follows ``upx``, by itself or in a container, in every block of a text."""
    blocks = "\n".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    called = re.findall(r"^(?:upx|docker run .*? upx-box|docker exec box upx) ([a-z].*)$", blocks, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in called]


def assert_there(words: list[str]) -> None:
    """Such a verb exists, and has every option that is named."""
    verb = max((verb for verb in verbs() if verb == tuple(words[: len(verb)])), key=len)
    assert verb, words
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert not [option for option in options if option not in re.findall(r"--[a-z-]+", help_of(verb))], words


@pytest.mark.parametrize("command", [unit_command(), container_command()], ids=["unit", "container"])
def test_what_starts_a_box_is_a_command_that_there_is(command: list[str]) -> None:
    assert command[:2] == ["worker", "serve"]
    assert_there(command)


@pytest.mark.parametrize(("text", "least"), [(PAGE, 12), (SECTION, 8)], ids=["page", "README"])
def test_every_command_that_is_shown_is_one_that_there_is(text: str, least: int) -> None:
    commands = shown_commands(text)
    assert len(commands) >= least
    assert {"serve", "add", "test"} <= {words[1] for words in commands if words[0] == "worker"}
    for words in {tuple(words) for words in commands}:
        assert_there(list(words))


def test_the_unit_is_restarted_reloaded_and_ended_as_the_box_expects_it() -> None:
    wanted = {"Restart": "always", "KillMode": "mixed", "ExecReload": "/bin/kill -HUP $MAINPID", "User": "upx"}
    assert {name: settings()[name] for name in wanted} == wanted
    from upx.serving.box import END_S, KILL_S

    assert int(settings()["TimeoutStopSec"]) > END_S + KILL_S


def test_the_unit_may_write_nothing_but_its_state() -> None:
    wanted = {"ProtectSystem": "strict", "ProtectHome": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    assert {name: settings()[name] for name in wanted} == wanted
    assert settings()["Environment"] == f"UPX_HOME=/var/lib/{settings()['StateDirectory']}"
    assert settings()["StateDirectoryMode"] == "0700"


def test_the_container_runs_as_nobody_special_and_keeps_its_home_in_a_volume() -> None:
    lines = DOCKERFILE.splitlines()
    assert "USER upx" in lines
    assert "VOLUME /var/lib/upx" in lines
    assert "UPX_HOME=/var/lib/upx" in DOCKERFILE
    assert lines.index("USER upx") < next(number for number, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
