"""Where a reader that comes back begins, in the journal of what runs here or in a store, and what it is refused."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from support.scene import Clock, Owner, Scene

from edge.errors import BadRequest, Gone
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import Prepared, prepare
from edge.protocol.surface import Surface
from edge.resume import lookup
from edge.resume.replay import Replay
from edge.settings import Store
from edge.store.memory.streams import MemoryStreams
from edge.store.ports import Ending, StreamMeta, lost
from edge.stream.channel import Retention
from edge.stream.generation import Generation
from edge.stream.persistence import StoredStream

ID = f"st_{'a' * 32}"
COMPLETE = Ending("complete", clean=True, at=1_000.0)


def event(number: int) -> bytes:
    return b"id: %b:%d\ndata: %d\n\n" % (ID.encode(), number, number)


@dataclass
class Asked:
    dialect: Any = field(default_factory=lambda: DIALECTS[Surface.CHAT])
    session: str | None = None


class Running:
    """An exchange that runs here, as far as a reader that comes back looks at it: three events so far."""

    stream_id, upstream, elapsed_s = ID, "up", 1.0

    def __init__(self, *, kept: int | None = 1 << 20) -> None:
        scene = Scene()
        own = scene.dialect.format("m", "req_1")
        retention = None if kept is None else Retention(kept)
        self.generation = Generation(ID, scene.settings, Clock(), Owner(), surface_format=own, retention=retention)
        self.prepared: Prepared = prepare(Surface.CHAT, b'{"model":"m","messages":[],"stream":true}')
        self.asked: Any = Asked()
        for number in (1, 2, 3):
            self.generation.publish(event(number), 1)


async def stored(first: int = 1, ending: Ending | None = None) -> StoredStream:
    """Three events in a store, the earlier ones gone."""
    store = MemoryStreams(Store(), lambda: 1_000.0)
    log = store.begin(StreamMeta(ID, "alice", "chat", "m", None, "req_1", 1_000.0, 1 << 20), first - 1)
    for number in range(first, 4):
        log.append(event(number), 1)
    if ending is not None:
        log.end(ending, "up", 0, lambda _: None)
    state = await store.find(ID)
    assert state is not None
    return StoredStream(store, state, None)  # type: ignore[arg-type]  # nothing is looked for


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_what_runs_here_is_read_on_in_its_journal(after: int) -> None:
    place = Running()
    lookup.check(place, after)
    start = lookup.begin(Scene().settings.stream, place, after)
    assert start.channel is place.generation
    assert place.generation.journal.read(start.position, 1 << 20) == b"".join(map(event, range(after + 1, 4)))
    assert start.facts.source == "live"
    assert place.generation.reconnections == 1


async def test_an_event_that_has_not_come_is_a_mistake() -> None:
    with pytest.raises(BadRequest, match="4"):
        lookup.check(Running(), 4)


async def test_a_stream_that_nobody_asked_to_keep_says_how_to_ask() -> None:
    with pytest.raises(Gone, match="x-edge-resume: 1"):
        lookup.check(Running(kept=None), 0)


async def test_events_that_had_to_go_are_gone() -> None:
    place = Running(kept=len(event(3)))
    place.generation.journal.bound(len(event(3)))
    lookup.check(place, 2)
    with pytest.raises(Gone):
        lookup.check(place, 1)


async def test_a_stream_of_a_store_is_replayed_for_this_reader_alone() -> None:
    place = await stored(ending=COMPLETE)
    lookup.check(place, 1)
    one, two = (lookup.begin(Scene().settings.stream, place, 1) for _ in range(2))
    assert isinstance(one.channel, Replay)
    assert one.channel is not two.channel
    assert (one.facts.source, one.facts.upstream) == ("store", "up")


async def test_what_a_store_has_let_go_of_is_gone_and_what_it_never_had_is_a_mistake() -> None:
    place = await stored(first=3, ending=COMPLETE)
    lookup.check(place, 2)
    with pytest.raises(Gone):
        lookup.check(place, 1)
    with pytest.raises(BadRequest):
        lookup.check(place, 4)


async def test_one_that_still_grows_elsewhere_may_have_more_than_the_store() -> None:
    lookup.check(await stored(), 4)


async def test_who_has_seen_the_last_event_of_an_ended_stream_has_seen_all() -> None:
    live = Running()
    assert not lookup.seen_all(live, 3)
    live.generation.stop(LifecycleEvent.STOP)
    last = live.generation.journal.last
    assert lookup.seen_all(live, last)
    assert not lookup.seen_all(live, last - 1)
    assert lookup.seen_all(await stored(ending=COMPLETE), 3)
    assert not lookup.seen_all(await stored(), 3)


async def test_whoever_saw_the_last_event_of_a_killed_process_is_still_to_hear_of_its_end() -> None:
    assert not lookup.seen_all(await stored(ending=lost(1_000.0)), 3)


async def test_a_return_to_a_store_is_counted_there() -> None:
    place = await stored(ending=COMPLETE)
    for times in (1, 2):
        counted = (await lookup.count({ID: place}))[ID]
        assert isinstance(counted, StoredStream)
        assert counted.state.reconnections == times


def test_somebody_elses_and_an_unknown_stream_are_the_same_words() -> None:
    error = lookup.unknown(ID)
    assert (error.status, error.code) == (404, "stream_not_found")
    assert str(error) == f"there is no stream {ID!r}"
