"""Strangers and bad clients at a box's door, while one good client is served: refused, logged, nothing lost or leaked.

python scripts/soak_parts/attackers.py --count 10 --seed 1     ten times: 100,000 connections, 1 GB of random bytes

The served client's 99th percentile is printed beside that of quieter times; only what no load explains is a failure.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zmq
from _box import TILE, RunningBox, client, trips
from _cases import main

from upx.config import Settings
from upx.remote.keys import KeyRing, z85
from upx_protocol.codec import encode
from upx_protocol.messages import Hello, Load, Ping, Upscale
from upx_protocol.testing import FakeHost
from upx_protocol.version import NEWEST, OLDEST

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

CONNECTIONS, RANDOM_BYTES = 10_000, 100_000_000
QUIET_S, ATTACK_S = 1.0, 3.0
# What a worker may hold more after an attack than before it.
MOST_GROWN, MOST_DESCRIPTORS = 64 << 20, 64


def attacked(settings: Settings, attack: Callable[[RunningBox, threading.Event], str], *, log: str = "") -> str:
    """Serve a good client in peace, then under attack; what went wrong, empty for nothing."""
    good = Settings.from_env({"UPX_HOME": str(settings.data_dir.parent / "good")})
    box = RunningBox(settings)
    box.allow("good", good)
    with box, client(box, good) as pool:
        trips(pool, 0.3)
        quiet = trips(pool, QUIET_S)
        held, open_before = box.resident, box.descriptors
        stop, found = threading.Event(), [""]
        thread = threading.Thread(target=lambda: found.append(attack(box, stop)), daemon=True)
        thread.start()
        busy = trips(pool, ATTACK_S)
        stop.set()
        thread.join(30)
        time.sleep(0.5)
        trips(pool, 0.2)
        ratio = np.percentile(busy, 99) / np.percentile(quiet, 99)
        print(f"  p99 {1e3 * np.percentile(quiet, 99):.1f} ms, attacked {1e3 * np.percentile(busy, 99):.1f} ms, "
              f"{ratio:.2f} of it; {len(busy) / ATTACK_S:.0f} tiles a second", flush=True)  # fmt: skip
        if thread.is_alive():
            return "the attack never ended"
        if box.resident - held > MOST_GROWN:
            return f"the worker holds {(box.resident - held) >> 20} MiB more"
        if not _falls(lambda: box.descriptors, open_before + MOST_DESCRIPTORS):
            return f"the worker has {box.descriptors} descriptors, {open_before} before"
        if log and log not in box.said:
            return f"nothing in the log says {log!r}"
        return found[-1]


def _falls(look: Callable[[], int], most: int) -> bool:
    """Whether a figure is down within the time that a handshake may take."""
    until = time.monotonic() + 8.0
    while look() > most and time.monotonic() < until:
        time.sleep(0.1)
    return look() <= most


def wrong_keys(settings: Settings, rng: random.Random) -> str:
    """Clients with keys that nobody allowed."""
    del rng

    def attack(box: RunningBox, stop: threading.Event) -> str:
        server = z85(box.keys.public("server"))
        while not stop.is_set():
            public, secret = zmq.curve_keypair()
            with FakeHost(
                f"tcp://127.0.0.1:{box.port}", timeout=0.3, curve=(server, public.decode(), secret.decode())
            ) as it:
                try:
                    it.hello()
                except TimeoutError:
                    continue
                return "a stranger was let in"
        return ""

    return attacked(settings, attack, log="refused: key")


def noise(settings: Settings, rng: random.Random) -> str:
    """Connections by the thousand, with random bytes, that begin as ZeroMQ's or do not."""
    seed = rng.randrange(2**32)

    def attack(box: RunningBox, stop: threading.Event) -> str:
        block = np.random.default_rng(seed).bytes(RANDOM_BYTES // CONNECTIONS)
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(48)
        for number in range(CONNECTIONS):
            try:
                with socket.create_connection(("127.0.0.1", box.port), timeout=5) as it:
                    it.sendall((greeting if number % 2 else b"") + block)
            except OSError:
                continue
            if number % 200 == 0 and stop.is_set() and number > CONNECTIONS:
                break
        return ""

    return attacked(settings, attack)


def loris(settings: Settings, rng: random.Random) -> str:
    """Connections that say nothing, or a byte now and then."""
    del rng

    def attack(box: RunningBox, stop: threading.Event) -> str:
        crowd = [socket.create_connection(("127.0.0.1", box.port), timeout=5) for _ in range(400)]
        while not stop.is_set():
            for it in crowd[::2]:
                try:
                    it.send(b"\xff")
                except OSError:
                    continue
            time.sleep(0.2)
        for it in crowd:
            it.close()
        return ""

    return attacked(settings, attack)


def bad_client(settings: Settings, rng: random.Random) -> str:
    """A client that is allowed: it sends headers that are too large, more than its credit, and reads nothing."""
    bad = Settings.from_env({"UPX_HOME": str(settings.data_dir.parent / "bad")})
    RunningBox(settings).allow("bad", bad)
    keys = KeyRing(bad).client()

    def attack(box: RunningBox, stop: threading.Event) -> str:
        server = z85(box.keys.public("server"))
        with FakeHost(f"tcp://127.0.0.1:{box.port}", curve=(server, keys.public, keys.secret)) as it:
            it.hello()
            it.send(Load(7, "another", "nearest-x4"))
            while not stop.is_set():
                it.send_raw([rng.randbytes(100_000)])
                it.send_raw(
                    encode(Upscale(rng.randrange(10**6), 0, "none", ()), session=it.session, arrays=[TILE] * 64)
                )
                it.send_raw(encode(Hello(1, OLDEST, NEWEST)) * 300)
                it.send(Ping(1))
                time.sleep(0.01)
        return ""

    return attacked(settings, attack)


def replay(settings: Settings, rng: random.Random) -> str:
    """What a good client once said, byte for byte, from another connection."""
    del rng
    good = Settings.from_env({"UPX_HOME": str(settings.data_dir.parent / "recorded")})
    RunningBox(settings).allow("recorded", good)
    keys = KeyRing(good).client()

    def attack(box: RunningBox, stop: threading.Event) -> str:
        said = _recorded(box, keys.public, keys.secret)
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", box.port), timeout=5) as it:
                it.sendall(said)
                it.settimeout(0.5)
                heard = b""
                try:
                    while part := it.recv(65_536):
                        heard += part
                except OSError:
                    pass
            # A greeting and a WELCOME; READY, and every message after it, would need the secret of the moment.
            if len(heard) > 400 or b"READY" in heard:
                return f"a replay was answered with {len(heard)} bytes"
        return ""

    return attacked(settings, attack)


def _recorded(box: RunningBox, public: str, secret: str) -> bytes:
    """All bytes that a client sends in a short session, caught on the way."""
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as way:

        def carry() -> None:
            theirs, _ = way.accept()
            with theirs, socket.create_connection(("127.0.0.1", box.port)) as ours:
                back = threading.Thread(target=_pump, args=(ours, theirs, bytearray()), daemon=True)
                back.start()
                _pump(theirs, ours, said)

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        server = z85(box.keys.public("server"))
        with FakeHost(f"tcp://127.0.0.1:{way.getsockname()[1]}", curve=(server, public, secret)) as it:
            it.hello()
        thread.join(5)
    return bytes(said)


def _pump(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
    try:
        while part := source.recv(65_536):
            copy += part
            target.sendall(part)
    except OSError:
        return


if __name__ == "__main__":
    Path(".cache/soak").mkdir(parents=True, exist_ok=True)
    sys.exit(
        main(
            {"wrong_keys": wrong_keys, "noise": noise, "loris": loris, "bad_client": bad_client, "replay": replay},
            "attack a box",
        )
    )
