"""Lines on their way out, past readers that stop, leave, or have no room."""

import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.telemetry.line_writer import LineWriter

PIPE_BYTES = 4096
WITHIN_S = 120.0  # against hanging


class Pipe:
    """A small pipe, which is full soon."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read_lines(self, writer: LineWriter) -> list[bytes]:
        """Read until the writer has written all; every line, whole."""
        data = b""
        done = threading.Event()

        def close() -> None:
            writer.close(WITHIN_S)
            os.close(self.writing)
            done.set()

        threading.Thread(target=close).start()
        while part := os.read(self.reading, 65536):
            data += part
        assert done.wait(WITHIN_S)
        assert data.endswith(b"\n")
        return data[:-1].split(b"\n")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reading)


def by_thread(descriptor: int, data: bytes) -> int:
    """As for what the kernel cannot write without waiting: a file, a terminal."""
    return os.write(descriptor, data)


def dropped(count: int) -> bytes:
    return b"dropped %d\n" % count


def writer_of(descriptor: int, write: Callable[[int, bytes], int] = os.write, most_bytes: int = 10_000) -> LineWriter:
    writer = LineWriter(descriptor, most_bytes, write)
    writer.make_dropped = dropped
    return writer


def line(number: int) -> bytes:
    return b"line %d %s\n" % (number, b"x" * 90)


ways = pytest.mark.parametrize("write", [os.write, by_thread], ids=["at once", "by thread"])


@ways
def test_a_reader_that_reads_gets_every_line_in_order(pipe: Pipe, write: Callable[[int, bytes], int]) -> None:
    writer = writer_of(pipe.writing, write, most_bytes=10**9)
    put = [line(number) for number in range(2000)]
    for one in put:
        writer.put(one)
    assert pipe.read_lines(writer) == [one[:-1] for one in put]


@ways
def test_a_reader_that_stops_holds_up_nobody_and_is_told_how_much_it_missed(
    pipe: Pipe, write: Callable[[int, bytes], int]
) -> None:
    """The test itself would hang if one of the writes did."""
    writer = writer_of(pipe.writing, write)
    for number in range(1000):
        writer.put(line(number))
    told = pipe.read_lines(writer)
    assert [one for one in told if one.startswith(b"dropped")]
    assert all_accounted(told) == 1000


def all_accounted(told: list[bytes]) -> int:
    """How many lines were put, if each is there or counted at its place."""
    put = 0
    for one in told:
        if missed := re.fullmatch(rb"dropped (\d+)", one):
            put += int(missed[1])
        else:
            assert one.startswith(b"line %d " % put)
            put += 1
    return put


def test_the_count_is_told_as_soon_as_it_goes_on_though_nothing_more_is_logged(pipe: Pipe) -> None:
    writer = writer_of(pipe.writing)
    for number in range(1000):
        writer.put(line(number))
    early = b""
    while not early.endswith(b"\n") or all_accounted(early[:-1].split(b"\n")) < 1000:
        early += os.read(pipe.reading, PIPE_BYTES)
    writer.put(b"later\n")
    assert pipe.read_lines(writer) == [b"later"]


def test_what_is_held_for_a_reader_that_stopped_is_bounded(pipe: Pipe) -> None:
    writer = writer_of(pipe.writing, most_bytes=2000)
    for number in range(1000):
        writer.put(line(number))
    assert writer._waiting_bytes <= 2000
    assert len(writer._waiting) <= 40  # 19 lines, and perhaps a count before each
    pipe.read_lines(writer)


def test_a_reader_that_never_reads_again_does_not_keep_the_process(pipe: Pipe) -> None:
    writer = writer_of(pipe.writing)
    for number in range(1000):
        writer.put(line(number))
    writer.close(0.01)  # and the thread is a daemon
    threads = [thread for thread in threading.enumerate() if thread.name == "edge-log"]
    assert threads
    assert all(thread.daemon for thread in threads)
    pipe.read_lines(writer)


def test_a_closed_pipe_is_no_failure_of_whoever_logs() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = writer_of(writing)
    for number in range(100):
        writer.put(line(number))
    writer.close(WITHIN_S)
    os.close(writing)


def test_lines_that_met_a_full_disk_are_counted_when_there_is_room_again(tmp_path: Path) -> None:
    """And what was written of a line when it became full does not become part of another one."""
    room = [150, None]  # bytes until it is full; then it has been cleared

    def write(descriptor: int, data: bytes) -> int:
        if room[0] is None:
            return os.write(descriptor, data)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sent = os.write(descriptor, data[: room[0]])
        room[0] -= sent
        return sent

    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = writer_of(file.fileno(), write)
        for number in range(5):
            writer.put(line(number))
        writer.close(WITHIN_S)
        room.pop(0)
        writer.put(b"again\n")
        writer.close(WITHIN_S)
    first, torn, count, last = path.read_bytes().splitlines()
    assert (first + b"\n", count, last) == (line(0), b"dropped 4", b"again")
    assert line(1).startswith(torn)


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = writer_of(pipe.writing, by_thread, most_bytes=10**9)
    for number in range(500):
        writer.put(line(number))
    assert len(pipe.read_lines(writer)) == 500


def test_a_moment_without_threads_delays_lines_and_loses_none(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(pipe.writing, by_thread)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        writer.put(b"one\n")
        writer.put(b"two\n")
    writer.put(b"three\n")
    assert pipe.read_lines(writer) == [b"one", b"two", b"three"]


def test_lines_of_several_threads_stay_whole(pipe: Pipe) -> None:
    writer = writer_of(pipe.writing, most_bytes=10**9)
    threads = [threading.Thread(target=lambda: [writer.put(line(7)) for _ in range(300)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipe.read_lines(writer) == [line(7)[:-1]] * 1200
