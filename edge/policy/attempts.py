"""How often one address may offer credentials that are wrong.

In: addresses, what they offered, and whether that was right; the time. Out: how long an address has to wait. Must not:
keep a credential (a digest does), grow with the number of addresses, or lock out who was let in before.

Many clients may share one address, behind a router or a proxy that is not trusted. So what was right from an address
is let in from there even while it must wait: whoever guesses does not learn from this what they could not know.
"""

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address

WINDOW_S = 60.0
_MOST_ADDRESSES = 4096  # of each table; the one unused for longest goes first


class Attempts:
    """See the module.

    Args:
        limit: Wrong ones in ``WINDOW_S``; 0 = any number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the first was
        self._right: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Attempts {len(self._failed)} failing, {len(self._right)} right>"

    def wait_s(self, address: str | None, digest: bytes, now: float) -> float:
        """How long the address has to wait before this credential is looked at; 0 = not at all."""
        key = _network(address)
        count, since = self._failed.get(key, (0, now))
        left_s = since + WINDOW_S - now
        if not self.limit or count < self.limit or left_s <= 0 or (key, digest) in self._right:
            return 0.0
        return left_s

    def wrong(self, address: str | None, now: float) -> None:
        """What was offered was wrong."""
        key = _network(address)
        count, since = self._failed.get(key, (0, now))
        self._failed[key] = (count + 1, since) if now - since < WINDOW_S else (1, now)
        self._failed.move_to_end(key)
        if len(self._failed) > _MOST_ADDRESSES:
            self._failed.popitem(last=False)

    def right(self, address: str | None, digest: bytes) -> None:
        """It was right."""
        key = (_network(address), digest)
        self._right[key] = None
        self._right.move_to_end(key)
        if len(self._right) > _MOST_ADDRESSES:
            self._right.popitem(last=False)


@lru_cache(_MOST_ADDRESSES)
def _network(address: str | None) -> str:
    """Who counts as one: an IPv4 address; of IPv6 the /64, all of which whoever has one has; all that are unknown."""
    if address is None or ":" not in address:
        return address or ""
    try:
        known = IPv6Address(address)
    except ValueError:
        return address
    return str(known.ipv4_mapped or int(known) >> 64)
