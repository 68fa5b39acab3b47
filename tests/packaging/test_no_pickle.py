"""Nothing that we ship unpickles: told by reading the code, and by running the command with every unpickler broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = [sys.executable, ROOT / "scripts" / "no-pickle"]

# What the command is asked to do with every unpickler broken. {photo} is a picture, {out} a path to write. Each with
# the exit codes that are right; {evil} is a pickle that would run a command.
VERBS: list[tuple[list[str], set[int]]] = [
    (["--help"], {0}),
    (["--version"], {0}),
    (["backends"], {0}),
    (["backends", "info", "span"], {0}),
    (["doctor"], {0, 5}),
    (["env", "list"], {0}),
    (["up", "{photo}", "-b", "nearest", "--scale", "2", "-o", "{out}", "--keep-alive", "0"], {0}),
    (["setup", "nearest"], {0}),
    (["models"], {0}),
    (["models", "list"], {0}),
    (["models", "info", "span-x4"], {0}),
    (["models", "pull", "span-x4"], {0}),
    (["models", "verify"], {0}),
    (["models", "du"], {0}),
    (["models", "gc"], {0}),
    (["models", "pin", "span-x4"], {0}),
    (["models", "rm", "span-x4"], {0}),
    (["models", "import", "{evil}", "--as", "hitsr-srf-x4"], {5}),
    (["ps"], {0}),
    (["top", "--once"], {0}),
    (["stop", "--all"], {0}),
    (["key", "show"], {0}),
    (["worker", "list"], {0}),
    (["worker", "drain"], {0}),
]

PLANTED = {
    "import pickle": "pickle",
    "import pickle as p": "pickle",
    "import os, _pickle": "_pickle",
    "from pickle import loads": "pickle",
    "from cPickle import loads as read": "cPickle",
    "def f():\n    import dill": "dill",
    "import cloudpickle": "cloudpickle",
    "import joblib.numpy_pickle": "joblib",
    "import shelve": "shelve",
    "import marshal": "marshal",
    "import jsonpickle": "jsonpickle",
    "import pickletools": "pickletools",
    "import multiprocessing": "multiprocessing",
    "from multiprocessing.shared_memory import SharedMemory": "multiprocessing",
    "from concurrent.futures import ProcessPoolExecutor": "ProcessPoolExecutor",
    "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()": "ProcessPoolExecutor",
    "from concurrent.futures import process": "concurrent.futures.process",
    "socket.recv_pyobj()": "recv_pyobj",
    "socket.send_pyobj(1)": "send_pyobj",
    "x.Unpickler(f)": "Unpickler",
    "from x import Unpickler": "Unpickler",
    "import pandas\npandas.read_pickle(f)": "read_pickle",
    "import numpy\nnumpy.load(f)": "numpy.load without allow_pickle=False",
    "import numpy as np\nnp.load(f, allow_pickle=True)": "allow_pickle is not False",
    "import numpy as np\nnp.load(f, allow_pickle=flag)": "numpy.load without allow_pickle=False",
    "import numpy as np\nnp.load(f, **options)": "numpy.load without allow_pickle=False",
    "import numpy as np\nread = np.load": "numpy.load without allow_pickle=False",
    "import numpy.lib.format as form\nform.read_array(f, allow_pickle=True)": "allow_pickle is not False",
    "from numpy import load\nload(f)": "numpy.load without allow_pickle=False",
    "from numpy import load as read\nread(f)": "numpy.load without allow_pickle=False",
    "def f():\n    return np.load(x)\ndef g():\n    import numpy as np": "numpy.load without allow_pickle=False",
    "import torch\ntorch.load(f)": "torch.load without weights_only=True",
    "import torch\ntorch.load(f, weights_only=False)": "torch.load without weights_only=True",
    "import torch\ntorch.load(f, weights_only=1)": "torch.load without weights_only=True",
    "from torch import serialization as s\ns.load(f)": "torch.serialization.load without weights_only=True",
    "import torch\ntorch.jit.load(f)": "torch.jit.load without weights_only=True",
    "import torch\ngetattr(torch, 'load')(f)": "torch.load without weights_only=True",
    "import torch\ntorch.hub.load_state_dict_from_url(u)": "load_state_dict_from_url",
    "import importlib\nimportlib.import_module('pickle')": "pickle",
    "from importlib import import_module\nimport_module(name='dill')": "dill",
    "__import__('marshal')": "marshal",
    "getattr(thing, 'Unpickler')": "Unpickler",
    "exec('import pickle')": "pickle",
    "import sys\nsys.modules['_pickle']": "_pickle",
}
HARMLESS = """
import numpy as np, json, tomllib
import torch
from concurrent.futures import Future, ThreadPoolExecutor
'''pickle'''
np.load(f, allow_pickle=False)
torch.load(f, mmap=True, weights_only=True)
json.load(f), json.loads(s), host.load("model"), tomllib.load(f)
kinds = {"pickle": 1}["pickle"]
pickled, unpickler = 1, 2
"""

GUARD = """
import _pickle, io, json, pickle, sys, zlib

def refuse(*_, **__):
    raise SystemExit("something unpickled")

for module in (pickle, _pickle):
    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        if hasattr(module, name):
            setattr(module, name, refuse)

def watch(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"something unpickled {arguments}")
    if event == "import" and arguments[0].partition(".")[0] in ("torch", "upx_backends", "diffusers", "ncnn"):
        raise SystemExit(f"the host imported {arguments[0]}")

sys.addaudithook(watch)
sys.argv[0] = "upx"
from upx.__main__ import main
main()
"""


def lint(*paths: Path) -> tuple[int, str]:
    done = subprocess.run([*LINT, *paths], capture_output=True, check=False, text=True, timeout=60)
    assert not done.stderr
    return done.returncode, done.stdout


def test_nothing_in_the_tree_can_unpickle() -> None:
    code, said = lint()
    assert code == 0, said
    assert int(said.split()[1]) > 100


@pytest.mark.parametrize("planted", PLANTED)
def test_each_way_to_unpickle_is_found_where_it_stands(planted: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "planted.py"
    path.parent.mkdir()
    path.write_text(f"'''A module.'''\n{planted}\n")
    code, said = lint(tmp_path)
    assert code == 1
    lines = said.splitlines()
    assert any(line.startswith(f"{path}:") and line.endswith(f": {PLANTED[planted]}") for line in lines), said


def test_what_only_sounds_like_it_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text(HARMLESS)
    code, said = lint(tmp_path)
    assert code == 0, said


def test_a_folder_that_is_not_there_or_empty_is_no_success(tmp_path: Path) -> None:
    assert lint(tmp_path / "none")[0] == 1
    assert lint(tmp_path)[0] == 1


def guarded(code: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, check=False, text=True, env=env, timeout=120)


@pytest.mark.parametrize(("verb", "codes"), VERBS, ids=[" ".join(verb[:2]) for verb, _ in VERBS])
def test_no_verb_of_the_command_unpickles_or_imports_torch(
    verb: list[str], codes: set[int], upx_env: dict[str, str], photograph: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    evil = tmp_path / "evil.pth"
    evil.write_bytes(b"cposix\nsystem\n(S'touch %b'\ntR." % bytes(out))
    arguments = [word.format(photo=photograph, out=out, evil=evil) for word in verb]
    done = guarded(GUARD, *arguments, env=upx_env)
    assert done.returncode in codes, done.stdout + done.stderr
    assert "unpickled" not in done.stderr
    assert out.is_file() is (verb[0] == "up")


@pytest.mark.parametrize(
    "deed",
    [
        "import pickle; pickle.loads(pickle.dumps(1))",
        "import pickle, io; pickle._Unpickler(io.BytesIO(b'')).load()",
        "import io, shelve; shelve.Unpickler(io.BytesIO(b'')).load()",
        "import multiprocessing.reduction as r; r.ForkingPickler.loads(b'')",
        "import torch",
        "import upx_backends.span.worker",
    ],
)
def test_the_guard_sees_what_it_is_there_for(deed: str, upx_env: dict[str, str]) -> None:
    code = GUARD.replace("from upx.__main__ import main\nmain()", deed)
    assert code != GUARD
    done = guarded(code, env=upx_env)
    assert done.returncode == 1
    assert "unpickled" in done.stderr or "the host imported" in done.stderr


def test_every_verb_that_there_is_stands_in_the_list() -> None:
    from upx.cli._app import VERBS as THERE

    # Loading and measuring are what `up` does too.
    assert {verb.name for verb in THERE} - {"bench", "warm"} == {verb[0] for verb, _ in VERBS if verb[0][0] != "-"}
