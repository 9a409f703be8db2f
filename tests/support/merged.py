"""Several streams over one connection, as a page reads them; and streams to read, begun and followed to their ends.

In: an Edge and its fake model server, scripts; the bytes of merged connections. Out: stream ids; what came of each
stream. Must not: forgive an event that comes twice or not at all.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes.model_server import FakeModel
from fakes.steps import Step

from support.eventsource import parsed
from support.raw import CHAT, Answer, RawClient, chat_body
from support.running import Running
from support.shapes import get

RESUME = {"x-edge-resume": "1"}


@dataclass
class Merged:
    """What a page has read so far, over any number of connections."""

    last_id: str = ""
    data: dict[str, list[tuple[str | None, str]]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str | None, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str | None, dict[str, Any]] = field(default_factory=dict)
    done: int = 0

    def read(self, body: bytes) -> None:
        """What one connection brought, whole events as far as they came."""
        for event in parsed(body, self.last_id).events:
            self.last_id = event.id
            told = event.json
            if event.type == "message":
                assert set(told) == {"stream", "seq", "event", "data"}
                self.data[told["stream"]].append((told["event"], told["data"]))
                assert told["seq"] == len(self.data[told["stream"]])  # nothing twice, nothing left out
            elif event.type == "done":
                self.done += 1
            else:
                kind = self.ends if event.type == "end" else self.errors
                assert kind.setdefault(told["stream"], told) is told, "told twice"

    def texts(self, stream: str) -> list[str]:
        return [data for _, data in self.data[stream]]


def path_of(streams: Sequence[str], more: str = "") -> str:
    return f"/v1/streams?follow=1&ids={','.join(streams)}{more}"


async def begun(client: RawClient, path: str = CHAT, body: Any = None) -> str:
    """Ask for a stream that can be come back to; its id, once the status is there."""
    await client.post(path, body or chat_body(), RESUME)
    await client.until(b"\r\n\r\n")
    return header(client.buffer, b"x-stream-id")


def header(head: bytes, name: bytes) -> str:
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return next(
        value.strip() for key, _, value in (line.partition(b":") for line in lines) if key.lower() == name
    ).decode()


async def finished(edge: Running, fake: FakeModel, script: Sequence[Step], path: str = CHAT, body: Any = None) -> str:
    """A stream that has ended, and whose reader has gone."""
    fake.script(*script)
    count = len(edge.records)
    async with RawClient(edge.port) as client:
        stream = await begun(client, path, body)
        await client.answer()
    await edge.record(count)
    return stream


async def whole(edge: Running, stream: str) -> list[tuple[str | None, str]]:
    """Name and data of each event of a stream, as it is read by itself."""
    answer = await get(edge.port, f"/v1/streams/{stream}")
    assert answer.status == 200, answer.body
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [(None, line.decode()) for line in answer.body.splitlines()]
    return [(None if event.type == "message" else event.type, event.data) for event in parsed(answer.body).events]


async def merged(edge: Running, streams: Sequence[str], more: str = "") -> tuple[Merged, Answer]:
    """Read several streams to their ends over one connection."""
    answer = await get(edge.port, path_of(streams, more))
    read = Merged()
    read.read(answer.body)
    return read, answer
