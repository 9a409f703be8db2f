"""What a browser's ``EventSource`` makes of a stream, after the HTML standard; and how it comes back for more.

In: the bytes of a stream, or a port and a path. Out: the events it dispatches. Must not: forgive what a browser would
not.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson

from support.raw import RawClient, parse


@dataclass(frozen=True)
class Event:
    """One dispatched event; ``id`` is the last id that was seen."""

    type: str
    data: str
    id: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


@dataclass
class Parsed:
    """What a stream was."""

    events: list[Event] = field(default_factory=list)
    last_id: str = ""
    retry_ms: int | None = None


def parsed(body: bytes, last_id: str = "") -> Parsed:
    """Read a stream; what is left without a blank line is never dispatched."""
    found = Parsed(last_id=last_id)
    kind, data, pending_id = "", [], last_id
    for line in body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        if not line:
            found.last_id = pending_id
            if data:
                found.events.append(Event(kind or "message", "\n".join(data), pending_id))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            pending_id = value
        elif name == "retry":
            found.retry_ms = int(value)
    return found


@dataclass
class Browser:
    """An ``EventSource``: it connects, and after any end of a stream connects again, until it is told not to."""

    port: int
    path: str
    statuses: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    async def run(self, most: int = 5) -> None:
        """Connect until a status other than 200 ends it, at the most ``most`` times."""
        last_id = ""
        while len(self.statuses) < most and (not self.statuses or self.statuses[-1] == 200):
            async with RawClient(self.port) as client:
                await client.get(self.path, {"Last-Event-ID": last_id} if last_id else None)
                answer = await client.answer()
            assert parse(client.buffer) is not None
            self.statuses.append(answer.status)
            if answer.status == 200:
                read = parsed(answer.body, last_id)
                last_id = read.last_id
                self.events += read.events
