"""Requests that go in a circle: which Edges one has passed, and whether this one is among them.

In: the ``CDN-Loop`` headers of a request (RFC 8586). Out: the Edges that it has passed; the header for whoever is asked
next; an error for a request that was here before. Must not: pass on entries that are not an Edge's.

It is not ``Via``, which makes servers change what they answer, and which proxies drop. Entries of others are left out:
a CDN in front of Edge is not in front of what Edge asks, and would count the request as its own a second time. A circle
through a CDN passes here as well.
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence

from edge.errors import LoopDetected

HEADER = "CDN-Loop"
MOST = 16  # Edges one after the other; nobody has so many, except in a circle of processes that are replaced
_ID = re.compile(r"(?<![\w-])edge-[0-9a-f]{16}(?![\w-])")


class Hop:
    """This Edge, as it is named in the header.

    Args:
        identity: A random one if none is given. It lasts as long as the process, and says nothing about it.

    Attributes:
        headers: Those of a request that begins here.
    """

    def __init__(self, identity: str | None = None) -> None:
        self.id = identity or f"edge-{secrets.token_hex(8)}"
        self.headers: Mapping[str, str] = {HEADER: self.id}

    def __repr__(self) -> str:
        return f"<Hop {self.id}>"

    def passed(self, values: Sequence[str]) -> tuple[str, ...]:
        """The Edges that a request has passed, in that order.

        Args:
            values: Of each such header.

        Raises:
            LoopDetected: this one is among them, or they are too many.
        """
        if not values:
            return ()
        found = tuple(dict.fromkeys(_ID.findall(",".join(values))))
        if self.id in found:
            raise LoopDetected("the request came back to an Edge that it has passed: upstreams point at each other")
        if len(found) >= MOST:
            raise LoopDetected(f"the request has passed {len(found)} Edges one after the other: they form a circle")
        return found

    def onward(self, passed: Sequence[str]) -> Mapping[str, str]:
        """The header for whoever is asked on behalf of a request that has passed these Edges."""
        return {HEADER: ", ".join((*passed, self.id))} if passed else self.headers


def ids_in(value: object) -> tuple[str, ...] | None:
    """A list of Edges as another Edge sends it; None if it is none."""
    if not isinstance(value, list) or len(value) > MOST:
        return None
    return tuple(value) if all(isinstance(one, str) and _ID.fullmatch(one) for one in value) else None


def meet(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether any Edge is among both."""
    return not frozenset(some).isdisjoint(others)
