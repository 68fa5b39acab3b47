"""Those who attack a box, in a process of their own, and what is attacked in its place to know what they cost.

    python scripts/soak_parts/_attacks.py NAME      reads a `Target` from its standard input, JSON on one line;
                                                    attacks until that ends; then says in JSON what it has `Done`

A real attacker sits at another machine and takes none of the box's processors. Here all share a few, so the box and
the client that is served go first: as real-time processes where that is permitted (see `attackers`), else whoever
attacks is idle to the scheduler (SCHED_IDLE). What the box's own threads do because of an attack is theirs, and stays
in the figures. What a kernel does for a packet that comes in is done on the loopback by who sends it, and is not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict

from _clients import bad_client, miser, revoked, wrong_keys
from _servers import curve_sink, impostor, sink
from _strangers import loris, noise, replay
from _targets import Done, Target, begin

SERVERS = {each.__name__: each for each in (sink, curve_sink)}
ATTACKS = {each.__name__: each for each in (wrong_keys, noise, loris, replay, bad_client, miser, revoked, impostor)}


def main(name: str) -> None:
    real_time = os.sched_getscheduler(0) == os.SCHED_RR
    os.sched_setscheduler(0, os.SCHED_OTHER if real_time else os.SCHED_IDLE, os.sched_param(0))
    if real_time:
        # Second to the box and its client alone: an attack is no weaker where more is going on.
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    target, done, stop = Target(**json.loads(sys.stdin.readline())), Done(), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    if name in ATTACKS:
        begin()
    {**ATTACKS, **SERVERS}[name](target, done, lambda: not stop.is_set())
    print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
