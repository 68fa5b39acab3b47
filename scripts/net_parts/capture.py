"""Write what passes a namespace's devices into a pcap file: raw IP packets, nanoseconds, the loopback left out.

Run as a script inside the namespace with the file's path: prints ``ready``, ends with its standard input, and prints
how many packets it took and how many the kernel had no room for.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

MAGIC_NANOSECONDS, LINKTYPE_RAW, LONGEST = 0xA1B23C4D, 101, 262_144
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SO_RCVBUFFORCE, SO_TIMESTAMPNS, SOL_PACKET, PACKET_STATISTICS = 33, 35, 263, 6
ROOM = 64 << 20


def header() -> bytes:
    return struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, LONGEST, LINKTYPE_RAW)


def record(packet: bytes, seconds: int, nanoseconds: int) -> bytes:
    return struct.pack("<IIII", seconds, nanoseconds, len(packet), len(packet)) + packet


def main(path: str) -> None:
    # SOCK_DGRAM leaves out the link's header, of which a TUN device has none.
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as wire,
        Path(path).open("wb") as to,
    ):
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        wire.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        wire.setblocking(False)
        to.write(header())
        to.flush()
        print("ready", flush=True)
        count = 0
        while sys.stdin not in select.select([wire, sys.stdin], [], [])[0]:
            count += _copy(wire, to, time.time_ns())
        # All that had passed when the end was asked for.
        count += _copy(wire, to, time.time_ns())
        _, dropped = struct.unpack("II", wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(count, dropped, flush=True)


def _copy(wire: socket.socket, to: BinaryIO, until: int) -> int:
    """Write what came up to that time, in nanoseconds; how many packets."""
    count = 0
    while True:
        try:
            packet, said, _, (device, kind, *_) = wire.recvmsg(LONGEST, 64)
        except BlockingIOError:
            return count
        seconds, rest = struct.unpack("qq", said[0][2])
        if device != "lo" and kind in {ETH_P_IP, ETH_P_IPV6}:
            to.write(record(packet, seconds, rest))
            count += 1
        if seconds * 1_000_000_000 + rest > until:
            return count


if __name__ == "__main__":
    main(sys.argv[1])
