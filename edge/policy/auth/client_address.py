"""Who is at the other end: the peer, or the client that a trusted proxy names.

In: the trusted proxies, once; then a peer's address and what its request says of others. Out: an address that is safe
to log. Must not: believe anybody who is not on the list, or anything that stands left of the first such.

Each proxy appends the address that it was called from, so what is right of the first stranger was written by trusted
proxies, and what is left of it by the stranger, who may write anything.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

UNIX = "unix"  # a peer on a Unix socket, which has no address
_MOST_HOPS = 32  # far more proxies than anybody has in a row
_PORT = r"(?::[0-9]{1,5})?"
_NODE = re.compile(rf"\[(?P<six>[0-9A-Fa-f:.]+)\]{_PORT}|(?P<four>[0-9.]+){_PORT}|(?P<bare>[0-9A-Fa-f:.]+)")
_PAIR = re.compile(
    r"\s*(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+)=(?:(?P<token>[A-Za-z0-9!#$%&'*+.^_`|~-]+)"
    r'|"(?P<quoted>(?:[^"\\]|\\.)*)")\s*'
)

Address = IPv4Address | IPv6Address
_SIX_BYTES = 8  # of an IPv6 address: a /64, all of which whoever has one has


def network_of(address: str | None) -> bytes:
    """Who counts as one caller: an IPv4 address; of IPv6 the /64; all whose address is not known.

    Returns:
        4 bytes of IPv4, 8 of IPv6, or the text of anything else after a zero byte.
    """
    if address is None or ":" not in address:
        parts = (address or "").split(".")
        try:
            return bytes(map(int, parts)) if len(parts) == 4 else _other(address)  # 1 µs; ip_address takes 3
        except ValueError:
            return _other(address)
    try:
        known = IPv6Address(address)
    except ValueError:
        return _other(address)
    return known.packed[:_SIX_BYTES] if known.ipv4_mapped is None else known.ipv4_mapped.packed


def _other(address: str | None) -> bytes:
    return b"\0" + (address or "").encode(errors="replace")[:64]


def holder_of(principal: str | None, address: str | None) -> str:
    """Under which name a caller's part of something is counted: who it is, else where it comes from."""
    return f"network {network_of(address).hex()}" if principal is None else f"principal {principal}"


class Proxies:
    """The proxies that are believed.

    Args:
        trusted: IP addresses, networks, and ``unix`` for whoever comes over a Unix socket.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = UNIX in trusted
        self._networks = [ip_network(text) for text in trusted if text != UNIX]

    def client(self, peer: str | None, forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str | None:
        """The address of the client.

        Args:
            peer: The address at the other end of the connection; ``unix``; None if it has gone already.
            forwarded_for: Each ``X-Forwarded-For`` header.
            forwarded: Each ``Forwarded`` header (RFC 7239).

        Returns:
            If the request has both headers and they differ, the proxy's own address: proxies write one of the two, and
            pass the other on as the client has written it.
        """
        if not (forwarded_for or forwarded) and (peer is None or ":" not in peer):
            return peer  # which is written in one way only, and most are so: to parse it takes 5 µs
        address = None if peer is None or peer == UNIX else _address(peer)
        nearest = peer if address is None else str(address)
        if not (forwarded_for or forwarded) or not self._trusts(peer, address):
            return nearest
        found = [map(_node, _hops(forwarded_for))] if forwarded_for else []
        found += [map(_for, _hops(forwarded))] if forwarded else []
        first, *other = (self._first_stranger(hops) for hops in found)
        return nearest if first is None or other not in ([], [first]) else first

    def _trusts(self, peer: str | None, address: Address | None) -> bool:
        if address is None:
            return self._unix and peer == UNIX
        return any(address in network for network in self._networks)

    def _first_stranger(self, hops: Iterable[Address | None]) -> str | None:
        """The first hop from the right that is not trusted; without one the last that is an address at all."""
        last = None
        for address in hops:
            if address is None:  # whoever wrote this does not know who came before
                break
            last = str(address)
            if not self._trusts(None, address):
                break
        return last


def _hops(headers: Sequence[str]) -> list[str]:
    """The elements of a list header, the last first; those that are empty are none.

    No address holds a comma. Where one is in a quoted text, what is right of it ends in a stray quote: no hop.
    """
    hops = ",".join(headers).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
    return [hop for hop in map(str.strip, reversed(hops)) if hop]


def _for(element: str) -> Address | None:
    """The address in one element of ``Forwarded``."""
    pairs = [_PAIR.fullmatch(text) for text in element.split(";")]
    if not all(pairs):
        return None
    nodes = [pair["token"] or pair["quoted"] for pair in pairs if pair is not None and pair["name"].lower() == "for"]
    return _node(nodes[0]) if len(nodes) == 1 and nodes[0] else None


def _node(text: str) -> Address | None:
    """An address as proxies write it: with a port or without, IPv6 with brackets or without."""
    match = _NODE.fullmatch(text)
    return None if match is None else _address(match["six"] or match["four"] or match["bare"])


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # how a socket for both families names an IPv4 peer
    return address
