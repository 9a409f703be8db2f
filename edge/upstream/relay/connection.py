"""One HTTP/1.1 connection to an upstream, as a bare protocol: what a read brings is pushed on in that read's callback.

In: a request and who asks it; network reads. Out: the head of the answer, the body bytes of each read, one end.
Must not: know what a body means, repeat a request, time out an answer, or parse HTTP by itself: llhttp does.

A paced token costs about half of what it does through aiohttp's client, whose bytes go through a stream reader with a
buffer, water marks and a waiter; and a stream needs no task. What aiohttp's client keeps to itself is known here:
that body framing is broken, and what had come before it was.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from typing_extensions import override

from edge.upstream.relay.asker import Asker, Home
from edge.upstream.relay.early_answer import TURNS, answer_waits, unread

# Bytes without any of a body between them: a head, trailers, chunk extensions. Far above any real head.
_MOST_BARREN_BYTES = 128 * 1024
_PIECE_BYTES = 64 * 1024  # a large request body goes out in pieces, each when the transport has room
_RECORD_BYTES = 16 * 1024  # over TLS: what is encrypted between a look at what has come and the write
_NOTHING = memoryview(b"")
_TAIL_S = 1.0  # for the body to end after its answer has: only then can the connection be used again


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        headers: By lower-case name; of a repeated one, the values joined.
    """

    status: int
    reason: str
    headers: dict[str, str]

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Malformed(Exception):
    """What came is not HTTP/1.1, or is over a bound."""


class Ended(Exception):
    """The connection ended before the answer did."""


def ignore(_data: bytes) -> None:
    """Takes a body that nobody wants."""


class Connection(asyncio.Protocol):
    """See the module. One request at a time."""

    __slots__ = (
        "_asked", "_asker", "_barren", "_complete", "_early", "_fault", "_fresh", "_full", "_headed", "_headers",
        "_home", "_keep", "_kept", "_lost", "_open", "_parser", "_parts", "_paused", "_reason", "_room", "_tail",
        "_taker", "_took", "_transport", "_unasked", "_unsent", "_until_eof", "idle_since", "on_body",
    )  # fmt: skip

    def __init__(self, home: Home) -> None:
        self.idle_since = 0.0
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._asked = False  # it has had a request
        self._asker: Asker | None = None
        self._taker: Callable[[bytes], None] = ignore  # the asker's
        self._took: Callable[[bytes], None] = ignore  # whoever takes what comes now
        self._parts: list[bytes] = []  # of the body, in the present read
        self.on_body = self._parts.append  # the parser's callback: no Python frame for a chunk
        self._kept: list[bytes] = []  # what came with a read in which the asker paused
        self._unsent = _NOTHING
        self._full = False
        self._room: asyncio.Future[None] | None = None  # waited for by ``send_more``
        self._paused = False
        self._lost = False
        self._unasked = False  # bytes came that answer nothing
        self._tail: asyncio.TimerHandle | None = None
        self._early: list[bytes] = []  # came before the first request: a full server answers whoever connects
        self._parser: HttpResponseParser | None = None  # before that, and once it is lost
        self._begin()

    def __repr__(self) -> str:
        doing = "lost" if self._lost else "asked" if self._asker is not None else "idle"
        return f"<Connection {doing}{' paused' * self._paused}>"

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._reason = ""
        self._headed = False  # the head is whole
        self._fresh = False  # and the asker does not know yet
        self._barren = 0
        self._until_eof = False
        self._open = False  # more of the request's body is to come
        self._keep = False
        self._complete = False  # the answer has ended, well or by ``_fault``
        self._fault: Exception | None = None

    # --- what the asker calls -------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """It can take a request, as far as is known on this side; or it has been answered already."""
        return bool(self._early) or self._standing

    @property
    def lost(self) -> bool:
        """It is closed."""
        return self._lost

    @property
    def _standing(self) -> bool:
        return self._transport is not None and not (self._lost or self._unasked or self._transport.is_closing())

    def ask(self, asker: Asker, head: bytes, body: bytes, *, more: bool = False) -> None:
        """Send a request; only while ``usable`` and not asked.

        Args:
            asker: Gets the answer.
            head: See ``Pool.head``.
            body: All of it, unless ``more``.
            more: The body goes on with ``send_more``, until ``sent_all``.
        """
        if self._transport is None:
            raise RuntimeError("a connection is asked before it is made")
        self._begin()
        self._asker = asker
        self._open = more
        if not self._asked:
            self._asked = True
            self._parser = HttpResponseParser(self)
        if self._early:
            asyncio.get_running_loop().call_soon(self._hear_early)
            return
        if len(body) <= _PIECE_BYTES:
            self._transport.write(head + body)
            return
        self._transport.write(head)
        self._unsent = memoryview(body)
        self._send()

    async def send_more(self, data: bytes) -> None:
        """More of the body, framed; returns once the transport has room for the next, or the connection is gone."""
        if self._transport is None:
            return
        piece_bytes = len(data) if self._transport.get_extra_info("ssl_object") is None else _RECORD_BYTES
        for start in range(0, len(data), piece_bytes):
            turns = TURNS
            while turns and self._answer_waits():
                turns -= 1
                await asyncio.sleep(0)
            if self._transport.is_closing():
                return
            self._transport.write(data[start : start + piece_bytes])
        if self._full:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def sent_all(self) -> None:
        """That was the end of the body."""
        self._open = False

    def hand_to(self, take: Callable[[bytes], None]) -> None:
        """From the next read on, this takes the body instead of what ``headed`` returned."""
        self._taker = take
        if not self._paused:
            self._took = take

    def pause(self) -> None:
        """Stop reading; what the present read has brought beyond this waits. Idempotent."""
        if not self._paused and self._asker is not None:
            self._paused = True
            self._took = self._kept.append
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    def resume(self) -> None:
        """Read again, in a turn of its own: whoever resumes may be in the middle of writing. Idempotent."""
        if self._paused:
            asyncio.get_running_loop().call_soon(self._catch_up, self._asker)
            self._paused = False

    def let_go(self) -> None:
        """The asker has its answer; if the rest of the body comes soon, the connection is used again."""
        if self._paused or self._kept:
            self.abort()
            return
        self._asker = None
        self._took = ignore
        if not self._complete:
            self._tail = asyncio.get_running_loop().call_later(_TAIL_S, self.abort)

    def abort(self) -> None:
        """Close at once, so that the model stops; the asker hears nothing more. Idempotent."""
        self._asker = None
        self._took = ignore
        self._kept.clear()
        if self._transport is not None:
            self._transport.abort()

    # --- what the transport calls ---------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is an asyncio.Transport in all but name

    @override
    def data_received(self, data: bytes) -> None:
        """The hot path: one call of the asker for each read, whatever its framing."""
        parser, parts = self._parser, self._parts
        if parser is None:
            self._early.append(data)
            return
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self._complete:
                self._unasked = True  # the answer is whole, and what follows it answers nothing
            else:
                self._end(Malformed(str(error)))
        if self._fresh:
            self._report_head()
        if parts:
            body = parts.pop()
            if parts:
                body = b"".join((*parts, body))
                parts.clear()
            self._took(body)
            self._barren = 0
        else:
            self._barren += len(data)
            if self._barren > _MOST_BARREN_BYTES:
                self._end(Malformed("a head or a trailer is too long"))
        if self._complete:
            self._finish()

    @override
    def eof_received(self) -> bool:
        """The transport closes itself, but only after what it still has to write."""
        if self._headed and self._until_eof and not self._complete:
            self._end(None)
            self._finish()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if exc is not None and self._asker is not None and self._transport is not None and not self._complete:
            left = unread(self._transport)
            if left:
                self.data_received(left)
        if self._asked and not self._early:
            self._parser = None  # it holds callbacks of ours: a cycle
        self._unsent = _NOTHING
        self._give_room()
        if not self._complete:
            whole = self._until_eof and exc is None
            self._end(None if whole else exc or Ended("the connection was closed"))
        self._home.gone(self)
        self._finish()

    @override
    def pause_writing(self) -> None:
        self._full = True

    @override
    def resume_writing(self) -> None:
        self._full = False
        self._give_room()
        self._send()

    # --- what the parser calls ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Something answers."""
        if self._complete or (self._asker is None and self._tail is None):
            self._unasked = True
            self._complete = True  # whatever it is, the connection is of no use any more

    def on_status(self, reason: bytes) -> None:
        """The reason phrase."""
        self._reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer, which nobody wants."""
        if not self._headed:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._status()
        if 100 <= status < 200 and status != 101:  # an interim answer: the real one follows
            self._headers, self._reason = {}, ""
            return
        self._headed = self._fresh = True
        self._until_eof = "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def on_message_complete(self) -> None:
        """The body has ended."""
        if self._headed:
            self._keep = self._parser is not None and self._parser.should_keep_alive()
            self._end(None)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _status(self) -> int:
        return 0 if self._parser is None else self._parser.get_status_code()

    def _report_head(self) -> None:
        self._fresh, self._barren = False, 0
        head, self._headers = Head(self._status(), self._reason, self._headers), {}
        asker = self._asker
        if asker is not None:
            self._taker = asker.headed(head)
            if self._asker is asker and not self._paused:  # it may have left, or paused, meanwhile
                self._took = self._taker

    def _hear_early(self) -> None:
        """The answer was there before the request."""
        data = b"".join(self._early)
        self._early.clear()
        self.data_received(data)
        if self._transport is not None and not self._complete:
            self._transport.close()
        if self._lost:
            self.connection_lost(None)

    def _answer_waits(self) -> bool:
        return self._transport is not None and not (self._paused or self._lost) and answer_waits(self._transport)

    def _send(self, turns: int = TURNS) -> None:
        """As much of a large body as the transport takes, but first let the loop read what has come of an answer."""
        tls = self._transport is not None and self._transport.get_extra_info("ssl_object") is not None
        piece_bytes = _RECORD_BYTES if tls else _PIECE_BYTES
        while self._unsent and not self._full and self._transport is not None and not self._transport.is_closing():
            if turns and self._answer_waits():
                asyncio.get_running_loop().call_soon(self._send, turns - 1)
                return
            self._transport.write(bytes(self._unsent[:piece_bytes]))
            self._unsent = self._unsent[piece_bytes:] or _NOTHING  # which would else keep the whole body

    def _give_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _end(self, fault: Exception | None) -> None:
        self._complete, self._fault = True, fault

    def _finish(self) -> None:
        """Settle the connection, then notify the asker, who may use it again; not before it has taken all there is."""
        asker = self._asker
        if asker is not None and (self._paused or self._kept):
            return
        self._asker = None
        self._took = self._taker = ignore  # an idle connection must not hold on to the answer that it brought
        if self._tail is not None:
            self._tail.cancel()
            self._tail = None
        self._settle()
        if asker is None:
            return
        if self._fault is None:
            asker.whole()
        else:
            asker.broke(self._fault, heard=self._headed or self._barren > 0)

    def _settle(self) -> None:
        if self._lost or self._transport is None:
            return
        if self._keep and not (self._fault or self._unsent or self._open) and self._standing:
            self._home.idle(self)
        else:
            self._transport.abort()

    def _catch_up(self, asker: Asker | None) -> None:
        """After a pause: first what had come before it."""
        if self._paused or asker is None or self._asker is not asker:
            return
        self._took = self._taker
        if self._kept:
            body = b"".join(self._kept)
            self._kept.clear()
            self._took(body)
            if self._paused or self._asker is not asker:
                return
        if self._complete:
            self._finish()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
