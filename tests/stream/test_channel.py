"""A channel by itself: what each reader finds, what is held for whom, and when its maker is to wait."""

import itertools

import pytest
from support.makers import At, Maker

from edge.settings import Stream
from edge.stream.channel import Retention
from edge.stream.journal import Expired

LIMIT = 1000


def maker(**more: int) -> Maker:
    return Maker("st_1", Stream(buffer_bytes=LIMIT), **more)


def test_a_reader_that_keeps_up_gets_what_comes_and_nothing_is_held() -> None:
    channel, reader = maker(), At()
    channel.attach(reader)
    for number in range(100):
        channel.publish(b"%03d\n" % number, 1)
    assert reader.got == b"".join(b"%03d\n" % number for number in range(100))
    journal = channel.journal
    assert (journal.start, journal.end, journal.before, journal.last) == (400, 400, 100, 100)
    assert journal.statistics().peak == 0


def test_a_reader_that_does_not_is_told_and_finds_it_in_the_journal() -> None:
    channel, reader = maker(), At(busy=True)
    channel.attach(reader)
    channel.publish(b"one\n", 1)
    channel.publish(b"two\n", 1)
    assert (reader.got, reader.pushes) == (b"", 2)
    assert channel.journal.read(reader.position, LIMIT) == b"one\ntwo\n"


@pytest.mark.parametrize("busy", list(itertools.product([False, True], repeat=3)))
def test_every_reader_gets_the_whole_whoever_keeps_up(busy: tuple[bool, ...]) -> None:
    channel, readers = maker(), [At(busy=slow) for slow in busy]
    for reader in readers:
        channel.attach(reader)
    for number in range(20):
        channel.publish(b"%02d\n" % number, 1)
        if number % 5 == 4:
            for reader in readers:
                reader.catch_up(channel)
    for reader in readers:
        reader.catch_up(channel)
        assert reader.got == b"".join(b"%02d\n" % number for number in range(20))
    assert channel.journal.end - channel.journal.start == 0


def test_its_maker_waits_when_all_lag_and_goes_on_when_the_furthest_has_caught_up() -> None:
    channel, near, far = maker(), At(busy=True), At(busy=True)
    channel.attach(near)
    channel.attach(far)
    channel.publish(b"x" * 400, 1)
    assert channel.asked == []
    channel.publish(b"x" * 400, 1)
    assert channel.asked == ["hold on"]
    assert channel.pauses == 1
    far.catch_up(channel)
    assert channel.asked == ["hold on", "go on"]


def test_one_that_lags_does_not_stop_the_maker_while_another_keeps_up() -> None:
    channel, slow, quick = maker(), At(busy=True), At(busy=True)
    channel.attach(slow)
    channel.attach(quick)
    for _ in range(20):
        channel.publish(b"x" * 100, 1)
        quick.catch_up(channel)
    assert channel.asked == []


def test_what_is_kept_is_bounded_and_written_to_its_store_whoever_reads() -> None:
    written: list[tuple[bytes, int]] = []
    channel, reader = maker(), At()
    channel = Maker("st_1", Stream(buffer_bytes=10), Retention(50, lambda data, count: written.append((data, count))))
    channel.attach(reader)
    for number in range(100):
        channel.publish(b"%03d\n" % number, 1)
    assert written == [(b"%03d\n" % number, 1) for number in range(100)]
    assert channel.journal.end - channel.journal.start <= 50
    assert channel.journal.read(396, LIMIT) == b"099\n"
    with pytest.raises(Expired):
        channel.journal.read(0, LIMIT)


def test_nothing_is_held_for_nobody() -> None:
    channel = maker()
    channel.publish(b"one\n", 1)
    assert (channel.journal.start, channel.journal.end) == (4, 4)


def test_the_last_one_to_leave_is_noticed_and_an_end_reaches_all() -> None:
    channel, one, two = maker(), At(), At()
    channel.attach(one)
    channel.attach(two)
    channel.detach(one)
    assert channel.asked == []
    channel.conclude()
    assert (one.ends, two.ends) == (0, 1)
    channel.detach(two, stalled=True)
    assert channel.asked == ["left, stalled"]
