"""The command as a whole: its help, its verbs, and the form of every failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from upx.cli import _host
from upx.cli._app import VERBS

HEAVY = ("numpy", "PIL", "zmq", "pydantic", "rich", "msgpack")
# Bare Python has 33. What help takes is what it loads; scripts/bench startup has the milliseconds.
MOST_MODULES = 170
NAMES = ["", *(verb.name for verb in VERBS)]
INNER = [["backends", "list"], ["backends", "info"], ["env", "list"], ["env", "prune"]]


def python(*args: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60, check=False, **kwargs)


@pytest.mark.parametrize("words", [[name] if name else [] for name in NAMES] + INNER, ids=" ".join)
def test_help_is_printed_and_loads_few_modules_and_nothing_heavy(words) -> None:
    code = f"""
import sys
from upx.cli._app import run
code = run({[*words, "-h"]!r})
print(len(sys.modules), *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
    ended = python("-c", code)
    assert ended.returncode == 0
    modules, *heavy = ended.stderr.split()
    assert heavy == []
    assert int(modules) <= MOST_MODULES
    assert ended.stdout.startswith(f"Usage: {' '.join(['upx', *words])}")
    assert "-h, --help" in ended.stdout


@pytest.mark.parametrize("words", [["models"], ["backends"], ["env", "list"], ["worker", "list"], ["ps"]], ids=" ".join)
def test_what_only_lists_files_loads_no_arrays_and_no_sockets(words, upx_env) -> None:
    heavy = ("numpy", "zmq", "asyncio", "PIL")
    code = f"""
import sys
from upx.cli._app import run
code = run({words!r})
print("loaded:", *(name for name in {heavy} if name in sys.modules))
sys.exit(code)
"""
    ended = python("-c", code, env=upx_env)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "loaded:"


def test_the_help_of_the_command_names_every_verb_in_its_group(upx) -> None:
    said = upx("--help").out
    for verb in VERBS:
        assert f"{verb.group}:\n" in said
        assert verb.help in said
    assert "--install-completion" in said
    assert "Examples:\n  upx up photo.jpg  " in said


def test_every_verb_is_documented_with_examples_and_json(upx) -> None:
    for verb in VERBS:
        said = upx(verb.name, "--help").out
        assert "Examples:" in said, verb
        assert "--json" in said, verb


def test_the_options_of_up_stand_in_groups(upx) -> None:
    said = upx("up", "-h").out
    order = [
        said.index(f"\n{group}:\n") for group in ("Arguments", "Output", "Model", "Picture", "Running", "Reporting")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["stpo"], "there is no verb 'stpo'", "did you mean: upx stop"),
        (["holiday.jpg"], "there is no verb 'holiday.jpg'", "did you mean: upx up holiday.jpg"),
        (["enlarge"], "there is no verb 'enlarge'", "upx --help"),
        (["--versoin"], "no such option: --versoin", "--version"),
        (["ps", "--josn"], "no such option: --josn", "--json"),
        (["ps", "-x"], "no such option: -x", "upx ps --help"),
        (["stop"], "name the workers", "upx ps"),
        (["setup"], "missing argument", "upx setup --help"),
        (["warm", "--keep-alive", "0"], "--keep-alive 0", "forever"),
        (["env", "purge"], "no such command 'purge'. Did you mean 'prune'?", "upx env --help"),
    ],
)
def test_a_wrong_word_is_answered_with_the_one_that_was_meant(upx, words, said, hint) -> None:
    ended = upx(*words)
    assert ended.code == 2
    what, step = ended.err.splitlines()
    assert what.startswith("upx: ")
    assert said in what
    assert hint in step
    assert ended.out == ""


def test_json_is_answered_with_json_even_when_the_words_make_no_sense(upx) -> None:
    import json

    ended = upx("up", "--nonsense", "--json")
    record = json.loads(ended.out)
    assert list(record) == ["schema", "kind", "code", "message", "hint", "exit_code"]
    assert (record["kind"], record["code"], record["exit_code"]) == ("error", "Usage", 2)


def test_no_words_print_the_help_where_it_does_not_pass_for_a_result(upx) -> None:
    ended = upx()
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("Usage: upx")


def test_the_version_is_that_of_the_distribution(upx) -> None:
    import json
    from importlib.metadata import version

    assert upx("--version").out.startswith(f"upx {version('upx-sr')} (protocol 1.")
    assert json.loads(upx("--version", "--json").out)["kind"] == "version"


def test_an_unexpected_failure_is_one_line_and_a_traceback_for_those_who_ask(upx, monkeypatch) -> None:
    def explode(_on_event=None):
        raise KeyError("oh")

    monkeypatch.setattr(_host, "make_host", explode)
    ended = upx("backends")
    assert ended.code == 1
    assert ended.err == "upx: unexpected KeyError: 'oh'\n  → -v shows where; please report it\n"
    assert "Traceback" in upx("backends", "list", "-v").err


def test_python_dash_m_is_the_command_and_names_a_wrong_setting(tmp_path) -> None:
    env = {**os.environ, "UPX_HOME": str(tmp_path), "UPX_OFFLINE": "perhaps"}
    ended = python("-m", "upx", "ps", env=env)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "upx: UPX_OFFLINE is 'perhaps'\n  → set UPX_OFFLINE to 1 or 0\n"


def test_a_reader_that_leaves_early_is_no_failure(tmp_path) -> None:
    env = {**os.environ, "UPX_HOME": str(tmp_path)}
    command = subprocess.Popen(
        [sys.executable, "-m", "upx", "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    with command.stderr:
        said = command.stderr.read()
    assert (command.wait(30), said) == (0, b"")


def test_a_terminal_without_our_arrow_gets_another(tmp_path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "UPX_HOME": str(tmp_path)}
    assert "\n  -> " in python("-m", "upx", "up", env=env).stderr


@pytest.mark.parametrize(("words", "offered"), [("upx s", {"setup", "stop"}), ("upx up --form", {"--format"})])
def test_the_shell_completes_verbs_and_options(words, offered) -> None:
    env = {**os.environ, "_UPX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ended = python("-c", "import sys; sys.argv[0] = 'upx'; from upx.__main__ import main; main()", env=env)
    assert set(ended.stdout.split()) == offered


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_are_no_bug_of_ours(tmp_path, closed) -> None:
    env = {**os.environ, "UPX_HOME": str(tmp_path)}
    command = f'"{sys.executable}" -X dev -m upx backends {closed}'
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False, env=env)  # noqa: S602  # the shell closes them
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("BACKEND") or ">&-" in closed


@pytest.mark.parametrize("words", [["backends"], ["backends", "--json"], ["up", "absent.png", "--json"]])
def test_results_that_find_no_space_end_in_one_line(tmp_path, words) -> None:
    env = {**os.environ, "UPX_HOME": str(tmp_path)}
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = subprocess.run(
            [sys.executable, "-m", "upx", *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=env
        )
    said = ended.stderr.decode()
    assert ended.returncode == 4
    assert "standard output cannot be written: No space left on device" in said
    assert "unexpected" not in said
    assert "Traceback" not in said


def test_words_that_a_terminal_would_obey_are_spelled_out(upx) -> None:
    ended = upx("up", "a\x1b]0;title\x07\u202eb.png")
    assert ended.code == 4
    assert "a\\x1b]0;title\\x07\\u202eb.png: no such file" in ended.err


def test_without_a_verb_json_is_still_json(upx) -> None:
    ended = upx("--json")
    assert ended.code == 2
    assert json.loads(ended.out)["kind"] == "error"
