"""A stream survives its connection: what was missed is replayed, and what follows comes live."""

from fakes.answers import chat_events
from fakes.model_server import FakeModel
from fakes.steps import chunk, end, gate, head
from support.eventsource import parsed
from support.raw import CHAT, RawClient, chat_body
from support.running import Serve
from support.shapes import get

RESUME = {"x-edge-resume": "1"}
WORDS = ("one", " two", " three", " four")


async def test_what_was_missed_and_what_follows_is_the_answer(serve: Serve, fake: FakeModel) -> None:
    events = chat_events(WORDS)
    fake.script(head(), chunk(b"".join(events[:3])), gate("more"), chunk(b"".join(events[3:])), end())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await client.until(b" two")
        stream = next(iter(edge.edge.registry.streams))
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}", {"Last-Event-ID": f"{stream}:2"})
        await client.until(b" two")
        fake.open("more")
        answer = await client.answer()
    assert answer.clean
    rest = parsed(answer.body).events
    assert [event.id for event in rest] == [f"{stream}:{n}" for n in range(3, 3 + len(rest))]
    assert rest[-1].data == "[DONE]"
    whole = parsed((await get(edge.port, f"/v1/streams/{stream}")).body)
    sent = [event.removeprefix(b"data: ").strip().decode() for event in events if b'"choices":[]' not in event]
    assert [event.data for event in whole.events] == sent
    assert (await get(edge.port, f"/v1/streams/{stream}", {"Last-Event-ID": whole.last_id})).status == 204
