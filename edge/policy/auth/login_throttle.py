"""How often one address may offer credentials that are wrong.

In: addresses, what they offered, and whether that was right; the time. Out: how long an address has to wait. Must not:
keep a credential (a digest does), grow with the number of addresses, forget a lock before its time, or lock out who was
let in before.

Many clients may share one address, behind a router or a proxy that is not trusted. So what was right from an address
is let in from there even while it must wait: whoever guesses does not learn from this what they could not know.

Nothing is forgotten within a minute, however many addresses there are: once the table is full, wrong credentials from
further addresses count on their /24 or /48 instead, in a fixed number of counters. So all addresses together have a
bounded number of guesses too. Whoever has an IPv6 /48 has 65,536 networks of /64: these have a limit together.
"""

from array import array
from hashlib import sha256

from edge.policy.auth.client_address import network_of

WINDOW_S = 60.0
_MOST_NETWORKS = 4096  # of each table
_COUNTERS = 4096  # for what is beyond; networks that share one by chance wait together
_SIX_BYTES, _SIX_WIDE_BYTES = 8, 6  # a /64, and the /48 around it
_FOUR_BYTES, _FOUR_WIDE_BYTES = 4, 3
_WIDE_LIMITS = 4  # how many times the limit of one /64 its /48 has
_COUNT_BITS = 20


class LoginThrottle:
    """See the module. At most 2 MB.

    Args:
        limit: Wrong ones in ``WINDOW_S``; 0 = any number.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # By network: when its first failure was (in ms), and how many there were, in one number: tuples take three
        # times the memory. In the order of those times.
        self._failed: dict[bytes, int] = {}
        self._right: dict[bytes, None] = {}  # the one unused for longest goes first
        self._since = array("d", [float("-inf")]) * _COUNTERS
        self._counts = array("L", [0]) * _COUNTERS

    def __repr__(self) -> str:
        return f"<LoginThrottle {len(self._failed)} failing, {len(self._right)} right>"

    def wait_s(self, address: str | None, digest: bytes, now: float) -> float:
        """How long the address has to wait before this credential is looked at; 0 = not at all."""
        if not self.limit:
            return 0.0
        network = network_of(address)
        wait_s = max(self._left_s(network, self.limit, now), self._overflow_left_s(_wide(network), now))
        if len(network) == _SIX_BYTES:
            wait_s = max(wait_s, self._left_s(_wide(network), _WIDE_LIMITS * self.limit, now))
        return 0.0 if wait_s and _known(network, digest) in self._right else wait_s

    def wrong(self, address: str | None, now: float) -> None:
        """What was offered was wrong."""
        if not self.limit:
            return
        self._forget_old(now)
        network = network_of(address)
        counted = self._count(network, now)
        if len(network) == _SIX_BYTES:
            counted = self._count(_wide(network), now) and counted
        if not counted:
            self._overflow(_wide(network), now)

    def right(self, address: str | None, digest: bytes) -> None:
        """It was right."""
        known = _known(network_of(address), digest)
        self._right.pop(known, None)
        self._right[known] = None
        if len(self._right) > _MOST_NETWORKS:
            del self._right[next(iter(self._right))]

    def _left_s(self, network: bytes, limit: int, now: float) -> float:
        since, count = _unpacked(self._failed.get(network, 0))
        return _left_s(since, now) if count >= limit else 0.0

    def _count(self, network: bytes, now: float) -> bool:
        """Count a failure; False if there is no room for one more network."""
        known = self._failed.get(network)
        if known is None:
            if len(self._failed) >= _MOST_NETWORKS:
                return False
            known = max(0, int(now * 1000)) << _COUNT_BITS
        self._failed[network] = known + 1 if (known + 1) & (1 << _COUNT_BITS) - 1 else known
        return True

    def _forget_old(self, now: float) -> None:
        while self._failed:
            first = next(iter(self._failed))
            if _left_s(_unpacked(self._failed[first])[0], now):
                return
            del self._failed[first]

    def _overflow(self, wide: bytes, now: float) -> None:
        at = hash(wide) % _COUNTERS  # of bytes it is salted: nobody can choose whom they meet there
        if not _left_s(self._since[at], now):
            self._since[at], self._counts[at] = now, 0
        self._counts[at] += 1

    def _overflow_left_s(self, wide: bytes, now: float) -> float:
        at = hash(wide) % _COUNTERS
        return _left_s(self._since[at], now) if self._counts[at] >= self.limit else 0.0


def _left_s(since: float, now: float) -> float:
    """What is left of a window that began then; nothing if the clock has been set back since."""
    return since + WINDOW_S - now if 0 <= now - since < WINDOW_S else 0.0


def _wide(network: bytes) -> bytes:
    """The /48 or /24 around it; anything else is its own."""
    if len(network) == _SIX_BYTES:
        return network[:_SIX_WIDE_BYTES]
    return network[:_FOUR_WIDE_BYTES] if len(network) == _FOUR_BYTES else network


def _known(network: bytes, digest: bytes) -> bytes:
    """What is kept of a credential that was right from there."""
    return sha256(network + digest).digest()[:16]


def _unpacked(number: int) -> tuple[float, int]:
    """When the first failure was, in seconds, and how many there were."""
    return (number >> _COUNT_BITS) / 1000, number & (1 << _COUNT_BITS) - 1
