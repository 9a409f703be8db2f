"""Several streams as one, by itself: whose turn it is, how each ends, and what becomes of one that cannot be read."""

import asyncio
import re

import orjson
from support.makers import At, Maker

from edge.errors import Gone, StoreUnavailable
from edge.policy.lifecycle import Outcome
from edge.protocol.mux_events import MuxFormat
from edge.protocol.sse import SSE_TYPE
from edge.protocol.surface import Surface
from edge.resume.lookup import StartPoint, StreamFacts
from edge.resume.mux import Mux
from edge.settings import Stream
from edge.stream.channel import Retention

IDS = [f"st_{digit * 32}" for digit in "ab"]
EVENT = r"(?:event: (\w+)\n)?(?:id: \S+\n)?(?:event: (\w+)\n)?data: (.*)\n\n"
DESCRIBED = StreamFacts(Surface.CHAT, "m", None, None, 0, "live")


async def settle() -> None:
    """All that is due now has run."""
    for _ in range(20):
        await asyncio.sleep(0)


class Two:
    """Two streams, and one reader of both."""

    def __init__(self, buffer_bytes: int = 1 << 20) -> None:
        settings = Stream(buffer_bytes=buffer_bytes)
        self.streams = [Maker(stream_id, settings, Retention(1 << 20)) for stream_id in IDS]
        self.mux = Mux("mux_1", settings, MuxFormat(IDS, {}))
        self.reader = At(busy=True)
        self.mux.attach(self.reader)

    def follow(self) -> None:
        for stream in self.streams:
            self.mux.add(StartPoint(stream, 0, DESCRIBED), SSE_TYPE)

    async def told(self) -> list[tuple[str, dict[str, object]]]:
        """The events so far: name, data."""
        await settle()
        self.reader.catch_up(self.mux)
        await settle()
        self.reader.catch_up(self.mux)
        events = re.findall(
            r"(?:event: (\w+)\n)?(?:id: \S+\n)?(?:event: (\w+)\n)?data: (.*)\n\n", self.reader.got.decode()
        )
        return [(one or two or "message", orjson.loads(data)) for one, two, data in events]


def end(stream: Maker, outcome: Outcome = Outcome.COMPLETE) -> None:
    stream.outcome, stream.clean = outcome, outcome is Outcome.COMPLETE
    stream.conclude()


async def test_events_of_both_come_with_their_stream_and_sequence() -> None:
    two = Two()
    two.follow()
    for stream, text in zip(two.streams, (b"data: 1\n\n", b"data: 2\n\n"), strict=True):
        stream.publish(text, 1)
    told = await two.told()
    assert [(event["stream"], event["seq"], event["data"]) for _, event in told] == [(IDS[0], 1, "1"), (IDS[1], 1, "2")]
    two.mux.detach(two.reader)


async def test_each_end_is_told_once_and_all_ends_last_of_all() -> None:
    two = Two()
    two.follow()
    end(two.streams[0])
    assert [name for name, _ in await two.told()] == ["end"]
    end(two.streams[1], Outcome.UPSTREAM_CUT)
    told = await two.told()
    assert [(name, event.get("outcome")) for name, event in told] == [
        ("end", "complete"),
        ("end", "upstream_cut"),
        ("done", None),
    ]
    assert (two.mux.outcome, two.mux.clean) == (Outcome.COMPLETE, True)
    assert [stream.readers for stream in two.streams] == [0, 0]


async def test_one_that_cannot_be_read_is_told_and_the_other_goes_on() -> None:
    two = Two()
    two.mux.lose(IDS[0], Gone("not kept any more", code="stream_gone"))
    two.mux.add(StartPoint(two.streams[1], 0, DESCRIBED), SSE_TYPE)
    two.streams[1].publish(b"data: x\n\n", 1)
    end(two.streams[1])
    told = await two.told()
    assert [(name, event.get("stream")) for name, event in told] == [
        ("error", IDS[0]),
        ("message", IDS[1]),
        ("end", IDS[1]),
        ("done", None),
    ]


async def test_one_that_may_be_read_later_makes_the_end_a_cut() -> None:
    """So that an EventSource comes back for it."""
    two = Two()
    two.mux.lose(IDS[0], StoreUnavailable("try again"))
    await two.told()
    assert (two.mux.outcome, two.mux.clean) == (Outcome.REJECTED, False)


async def test_a_reader_that_leaves_leaves_both() -> None:
    two = Two()
    two.follow()
    two.mux.detach(two.reader)
    assert [stream.asked for stream in two.streams] == [["left"], ["left"]]
    assert two.mux.outcome is Outcome.CLIENT_GONE


async def test_while_its_reader_lags_nothing_is_taken_of_the_streams() -> None:
    two = Two(buffer_bytes=4096)
    two.follow()
    for number in range(200):
        two.streams[0].publish(b"data: %0100d\n\n" % number, 1)
    await settle()
    held = two.mux.journal.statistics().held
    assert 0 < held < 4096 * 16
    while len(told := await two.told()) < 200:
        pass
    assert [int(str(event["data"])) for _, event in told] == list(range(200))


async def test_two_that_both_have_much_take_turns() -> None:
    two = Two()
    for stream in two.streams:
        for _ in range(300):
            stream.publish(b"data: %0200d\n\n" % 0, 1)
    two.follow()
    told = await two.told()
    first_of_second = next(at for at, (_, event) in enumerate(told) if event["stream"] == IDS[1])
    assert first_of_second < 200, "the second one waits for a slice of the first, and not for all of it"
    two.mux.detach(two.reader)
