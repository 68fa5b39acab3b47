"""Connections that have not said a word yet, and which of them goes when too many stand before the door. Pure."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address
from itertools import islice
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    from upx_protocol.descriptors import Peer


class Strangers:
    """Descriptors and the other end of each, by its sender: who sends a crowd pushes out its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._where: OrderedDict[int, Peer] = OrderedDict()
        self._of: Dict[str, OrderedDict[int, Peer]] = {}

    def __len__(self) -> int:
        return len(self._where)

    def add(self, fd: int, peer: Peer) -> None:
        """One has come; a descriptor that is known is another connection's by now."""
        self.pop(fd)
        self._where[fd] = peer
        self._of.setdefault(sender(peer[0]), OrderedDict())[fd] = peer

    def pop(self, fd: int) -> Optional[Peer]:
        """One has left, or spoken; its other end, None where it is no stranger."""
        peer = self._where.pop(fd, None)
        if peer is not None:
            name = sender(peer[0])
            crowd = self._of[name]
            del crowd[fd]
            if not crowd:
                del self._of[name]
        return peer

    def some(self, count: int) -> List[Tuple[int, Peer]]:
        """So many of them, each in its turn."""
        found = list(islice(self._where.items(), count))
        for fd, _ in found:
            self._where.move_to_end(fd)
        return found

    def one_too_many(self) -> Optional[Tuple[int, Peer]]:
        """The oldest of the largest crowd, which is no stranger from here on; None where there is room."""
        if len(self._where) <= self._most:
            return None
        fd, peer = next(iter(max(self._of.values(), key=len).items()))
        self.pop(fd)
        return fd, peer


def sender(address: str) -> str:
    """Who counts as one: an address, or of IPv6 the /64, all of which is one customer's."""
    if ":" not in address:
        return address
    whole = IPv6Address(address)
    return str(whole.ipv4_mapped or whole.packed[:8].hex(":"))
