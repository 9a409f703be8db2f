"""Which of the processes that share the file are alive: each renews a lease in it while it has anything of its own.

In: clocks; the leases in the file. Out: whose lease has lapsed. Must not: take a process for dead because the machine
slept or its clock was set: then all leases are old at once, and their owners have ``LEASE_S`` to renew them.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable

from edge.store.ports import LEASE_S, RENEW_S

_JUMP_S = 1.0  # by which the clocks part, if one of them did not just run


class Lease:
    """This process's, and what it thinks of the others'. Used by several threads.

    Args:
        clock: Unix time.
        monotonic: Seconds that this process ran, or could have.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.owner = secrets.token_hex(8)
        self._clock = clock
        self._monotonic = monotonic
        self._apart = clock() - monotonic()
        self._woke = float("-inf")
        self._renewed = float("-inf")  # by the real clock that rounds go by

    def now(self) -> float:
        """Unix time; notices if it jumped."""
        now = self._clock()
        apart = now - self._monotonic()
        if abs(apart - self._apart) > _JUMP_S:
            self._woke = now
        self._apart = apart
        return now

    def lapsed(self, renewed: float | None, now: float) -> bool:
        """Whether the owner that last renewed its lease then is gone; None: it has none."""
        if renewed is None:
            return True
        return abs(now - renewed) > LEASE_S and not 0 <= now - self._woke <= LEASE_S

    @property
    def due(self) -> bool:
        """Whether it is time to renew it."""
        return time.monotonic() - self._renewed >= RENEW_S

    def renew(self, connection: sqlite3.Connection, now: float) -> None:
        """Renew it, in a transaction. If it had lapsed, and streams were ended for that, they have not."""
        before = connection.execute("SELECT renewed FROM owners WHERE id = ?", (self.owner,)).fetchone()
        connection.execute("INSERT OR REPLACE INTO owners (id, renewed) VALUES (?, ?)", (self.owner, now))
        if before is None or abs(now - before[0]) > LEASE_S:
            connection.execute(
                "UPDATE streams SET ended = NULL, ending = NULL, lost = 0 WHERE owner = ? AND lost = 1", (self.owner,)
            )
        self._renewed = time.monotonic()

    def lost(self) -> None:
        """What was renewed last may not have been written."""
        self._renewed = float("-inf")

    def gone(self, connection: sqlite3.Connection, now: float) -> dict[str, float]:
        """Owners that have no lease any more, and since when they have not."""
        found = connection.execute(
            "SELECT owner, renewed FROM (SELECT owner FROM streams WHERE ended IS NULL UNION SELECT owner FROM claims "
            "UNION SELECT id FROM owners) LEFT JOIN owners ON id = owner WHERE owner <> ?",
            (self.owner,),
        ).fetchall()
        return {
            owner: now if renewed is None else renewed + LEASE_S
            for owner, renewed in found
            if self.lapsed(renewed, now)
        }
