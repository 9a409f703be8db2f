"""How many refusals are worth a line of their own: whoever is refused a thousand times a second must not fill the log.

In: each refusal's address and reason. Out: whether it gets a line; once a minute, a line that counts those that got
none. Must not: grow with the number of addresses, or lose a count.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol

MINUTE_S = 60.0
LINES = 10  # for each address and reason in a minute
MOST_ENTRIES = 256  # beyond these, the other addresses share one entry for each reason
_OTHERS = "other addresses"
_OTHER_REASONS = "other reasons"
_MOST_REASONS = 64  # there are fewer; this is the bound in case somebody outside can make them up


class CountLine(Protocol):
    """Writes the line of the minute."""

    def __call__(self, client: str | None, error: str | None, more: int) -> None:
        """So many refusals of this client, for this reason, had no line of their own."""


@dataclass(slots=True)
class _Entry:
    client: str | None
    error: str | None
    lines: int = 0
    more: int = 0


def _later(delay_s: float, act: Callable[[], None]) -> Callable[[], None]:
    return asyncio.get_running_loop().call_later(delay_s, act).cancel


class Refusals:
    """One minute of refusals, which begins with the first of them.

    Args:
        write_count: Writes a count.
        later: Has something done after so many seconds; returns what cancels it.
    """

    def __init__(
        self, write_count: CountLine, later: Callable[[float, Callable[[], None]], Callable[[], None]] = _later
    ) -> None:
        self._write_count = write_count
        self._later = later
        self._entries: dict[tuple[str, str | None], _Entry] = {}
        self._cancel: Callable[[], None] | None = None

    def admit(self, client: str | None, error: str | None) -> bool:
        """Count a refusal, and say whether it gets a line."""
        if self._cancel is None:
            self._cancel = self._later(MINUTE_S, self.flush)
        entry = self._entry(client, error)
        if entry.lines < LINES:
            entry.lines += 1
            return True
        entry.more += 1
        return False

    def flush(self) -> None:
        """End the minute, and write the counts."""
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            if entry.more:
                self._write_count(entry.client, entry.error, entry.more)

    def _entry(self, client: str | None, error: str | None) -> _Entry:
        key = (_network(client), error)
        entry = self._entries.get(key)
        if entry is not None:
            return entry
        if len(self._entries) >= MOST_ENTRIES:
            known = (_OTHERS, error) in self._entries or len(self._entries) < MOST_ENTRIES + _MOST_REASONS
            client, error = _OTHERS, error if known else _OTHER_REASONS
            key = (_OTHERS, error)
        return self._entries.setdefault(key, _Entry(client, error))


def _network(client: str | None) -> str:
    """An IPv4 address as it is; of an IPv6 address its /64, all of which one caller has."""
    if client is None or ":" not in client:
        return client or ""
    try:
        address = IPv6Address(client)
    except ValueError:
        return client
    return str(address.ipv4_mapped or int(address) >> 64)
