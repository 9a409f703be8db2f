"""A connection by itself: however the reads are cut the asker hears the same, and nothing grows without bound."""

import asyncio
from collections.abc import Callable

import pytest

from edge.upstream.relay.connection import Connection, Ended, Head, Malformed

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "chunked": (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n", b"abcde"),
    "sized": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", b"abcde"),
    "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "interim": (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
}


class Transport(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = self.paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Asker:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.body = b""
        self.end: str | Exception | None = None
        self.heard = True

    def headed(self, head: Head) -> Callable[[bytes], None]:
        self.heads.append(head)
        return self._take

    def _take(self, data: bytes) -> None:
        self.body += data

    def whole(self) -> None:
        assert self.end is None
        self.end = "whole"

    def broke(self, fault: Exception, *, heard: bool) -> None:
        assert self.end is None
        self.end, self.heard = fault, heard


class Scene:
    """A connection that has been asked; its home notes."""

    def __init__(self) -> None:
        self.idled: list[Connection] = []
        self.lost: list[Connection] = []
        self.transport, self.asker = Transport(), Asker()
        self.connection = Connection(self)
        self.connection.connection_made(self.transport)
        self.connection.ask(self.asker, b"HEAD", b"BODY")

    def idle(self, connection: Connection) -> None:
        self.idled.append(connection)

    def gone(self, connection: Connection) -> None:
        self.lost.append(connection)


@pytest.mark.parametrize(("wire", "body"), ANSWERS.values(), ids=ANSWERS)
def test_cut_anywhere_an_answer_is_the_same(wire: bytes, body: bytes) -> None:
    for cut in range(len(wire)):
        scene = Scene()
        for part in (wire[:cut], wire[cut:]):
            scene.connection.data_received(part)
        assert (scene.asker.body, scene.asker.end, len(scene.asker.heads)) == (body, "whole", 1)
        assert (scene.idled, scene.transport.aborted) == ([scene.connection], False)
        assert scene.transport.written == b"HEADBODY"


def test_it_is_used_again_and_tells_the_head() -> None:
    scene = Scene()
    for _ in range(2):
        scene.connection.data_received(ANSWERS["chunked"][0])
        assert scene.connection.usable
        assert scene.asker.heads[-1].content_type == "text/event-stream"
        scene.asker = Asker()
        scene.connection.ask(scene.asker, b"H", b"B")
    assert len(scene.idled) == 2


@pytest.mark.parametrize("trailers", [b"Retry-After: 9\r\n", b"A: b\r\nContent-Type: text/evil\r\nRetry-After: 9\r\n"])
def test_a_trailer_is_no_header_of_the_next_answer(trailers: bytes) -> None:
    """The next answer may be another client's."""
    wire = CHUNKED + b"1\r\na\r\n0\r\n" + trailers + b"\r\n"
    for cut in range(len(wire)):
        scene = Scene()
        for part in (wire[:cut], wire[cut:]):
            scene.connection.data_received(part)
        scene.asker = Asker()
        scene.connection.ask(scene.asker, b"H", b"B")
        scene.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
        assert (scene.asker.body, scene.asker.end) == (b"b", "whole")
        assert scene.asker.heads[0].headers == {"content-length": "1"}


def test_a_body_without_length_ends_with_the_connection() -> None:
    scene = Scene()
    scene.connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert scene.asker.end is None
    scene.connection.connection_lost(None)
    assert (scene.asker.body, scene.asker.end, scene.lost) == (b"abc", "whole", [scene.connection])


@pytest.mark.parametrize("said", [b"", b"H", CHUNKED, CHUNKED + b"3\r\nab"])
def test_an_answer_that_is_cut_is_told_with_what_came_before(said: bytes) -> None:
    scene = Scene()
    scene.connection.data_received(said)
    scene.connection.connection_lost(None)
    assert isinstance(scene.asker.end, Ended)
    assert (scene.asker.heard, scene.asker.body) == (said != b"", said.partition(b"3\r\n")[2])


def test_broken_framing_is_told_after_what_came_before_it() -> None:
    scene = Scene()
    scene.connection.data_received(CHUNKED + b"3\r\nabc\r\nZZ\r\n")
    assert isinstance(scene.asker.end, Malformed)
    assert (scene.asker.body, scene.transport.aborted, scene.idled) == (b"abc", True, [])


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", CHUNKED + b"0\r\nX: "], ids=["head", "trailer"])
def test_an_endless_header_is_given_up(start: bytes) -> None:
    scene = Scene()
    scene.connection.data_received(start)
    for _ in range(40):
        scene.connection.data_received(b"a" * 8192)
    assert isinstance(scene.asker.end, Malformed)
    assert scene.transport.aborted


def test_bytes_that_answer_nothing_close_it() -> None:
    scene = Scene()
    scene.connection.data_received(ANSWERS["sized"][0])
    scene.connection.data_received(ANSWERS["sized"][0])
    assert scene.asker.body == b"abcde"
    assert (scene.transport.aborted, scene.connection.usable) == (True, False)


def test_a_second_answer_in_the_same_read_is_nobodys() -> None:
    scene = Scene()
    scene.connection.data_received(ANSWERS["sized"][0] * 2)
    assert scene.asker.end == "whole"
    assert (scene.transport.aborted, scene.idled) == (True, [])


def test_after_an_abort_the_asker_hears_nothing() -> None:
    scene = Scene()
    scene.connection.data_received(CHUNKED)
    scene.connection.abort()
    scene.connection.data_received(b"3\r\nabc\r\n")
    scene.connection.connection_lost(None)
    assert (scene.asker.body, scene.asker.end) == (b"", None)
