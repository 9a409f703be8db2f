"""A fake model server that is not the bottleneck: one epoll loop, one ``send`` per write, nothing in between.

In: requests whose prompt says what answer is wanted (``wire.Ask``); ``GET /stats``. Out: that answer, streamed or as
one JSON body, and counts of what became of the streams. Must not: write ahead of its readers (of what a full socket
does not take, one write is kept at most), or hold one stream up for another.

It says ``listening PORT`` when it does, and runs until it is killed.
"""

import contextlib
import gc
import heapq
import itertools
import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass

import wire

_WATCHED = select.EPOLLIN | select.EPOLLRDHUP
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 14 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LINES_HEAD = _STREAM_HEAD.replace(b"text/event-stream; charset=utf-8", b"application/x-ndjson")
_END = b"0\r\n\r\n"
_MODELS = {"object": "list", "data": [{"id": wire.MODEL, "object": "model", "created": 0, "owned_by": "vllm"}]}
_ASKED = (b"/v1/chat/completions", b"/chat/completions", b"/api/chat")
_LATE = 2  # intervals; a stream that is later than this goes on from now instead of catching up in a burst


@dataclass
class Stats:
    """What became of the streams so far."""

    alive: int = 0
    started: int = 0
    finished: int = 0
    aborted: int = 0
    requests: int = 0
    tokens: int = 0
    bytes: int = 0


class Stream:
    """An answer on its way."""

    __slots__ = ("ask", "due", "lines", "number", "received", "usage", "writes")

    def __init__(self, ask: wire.Ask, received: float, *, usage: bool, lines: bool = False) -> None:
        self.ask = ask
        self.lines = lines  # Ollama's, which are always paced
        self.received = received
        self.usage = usage
        self.number = 0  # of the next token
        self.writes = wire.writes(ask.per) if ask.rate == 0 else []
        self.due = received
        if ask.rate:
            self.due = self._grid(received) if ask.align else received + ask.per / ask.rate

    def _grid(self, now: float) -> float:
        interval = self.ask.per / self.ask.rate
        return (now // interval + 1) * interval

    def postpone(self, now: float) -> None:
        """To the next due moment."""
        interval = self.ask.per / self.ask.rate
        self.due += interval
        if self.due < now - _LATE * interval:
            self.due = self._grid(now) if self.ask.align else now + interval

    def next(self, now: float) -> tuple[bytes, bool]:
        """The bytes of the next write, and whether they are the last."""
        ask, first = self.ask, self.number
        self.number = min(first + ask.per, ask.n)
        count = self.number - first
        if self.lines:
            return self._lines(first, count, now)
        if ask.rate:
            data = wire.framed(self._stamped(first, count, now))
        elif count == ask.per and first % ask.per == 0:
            data = self.writes[first % wire.CYCLE // ask.per]
        else:
            data = wire.framed(b"".join(map(wire.token, range(first, self.number))))
        if first == 0:
            data = _STREAM_HEAD + wire.framed(wire.ROLE) + data
        if self.number < ask.n:
            return data, False
        usage = wire.framed(wire.usage(ask.n)) if self.usage else b""
        return data + wire.framed(wire.FINISH) + usage + wire.framed(wire.DONE) + _END, True

    def _lines(self, first: int, count: int, now: float) -> tuple[bytes, bool]:
        stamps = int(now * 1e6), int((now - self.received) * 1e6)
        data = wire.framed(b"".join([wire.line(number, *stamps) for number in range(first, first + count)]))
        if first == 0:
            data = _LINES_HEAD + data
        if self.number < self.ask.n:
            return data, False
        return data + wire.framed(wire.LAST_LINE) + _END, True

    def _stamped(self, first: int, count: int, now: float) -> bytes:
        written, waited = int(now * 1e6), int((now - self.received) * 1e6)
        return b"".join([wire.token(number, written, waited) for number in range(first, first + count)])


class Connection:
    """One client, which is a proxy mostly."""

    __slots__ = ("inbox", "last", "pending", "sock", "stream")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = b""
        self.pending = memoryview(b"")
        self.stream: Stream | None = None
        self.last = False  # nothing of the stream comes after what is pending


class Server:
    """See the module."""

    def __init__(self, port: int) -> None:
        self.stats = Stats()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._fast: dict[int, Connection] = {}  # full speed streams whose socket takes more
        self._due: list[tuple[float, int, Connection, Stream]] = []
        self._order = itertools.count()

    def run(self) -> None:
        """Serve until killed."""
        while True:
            self._turn()

    def _turn(self) -> None:
        for fd, mask in self._epoll.poll(self._timeout()):
            if fd == self._listener.fileno():
                self._accept()
            elif connection := self._connections.get(fd):
                self._ready(connection, mask)
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, connection, stream = heapq.heappop(self._due)
            if connection.stream is stream:
                self._tick(connection, stream)
        for connection in list(self._fast.values()):
            if connection.stream is not None:
                self._advance(connection, connection.stream)

    def _timeout(self) -> float:
        if self._fast:
            return 0.0
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[sock.fileno()] = Connection(sock)
                self._epoll.register(sock, _WATCHED)

    def _ready(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLIN:
            try:
                data = connection.sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._lost(connection)
                return
            connection.inbox += data
            self._requests(connection)
        elif mask & _GONE:
            self._lost(connection)
            return
        if mask & select.EPOLLOUT and connection.pending:
            self._flush(connection)

    def _lost(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is None:
            return
        self._fast.pop(fd, None)
        if connection.stream is not None:
            self.stats.alive -= 1
            self.stats.aborted += 1
            connection.stream = None
        self._epoll.unregister(fd)
        connection.sock.close()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _requests(self, connection: Connection) -> None:
        """Answer what has arrived whole, one after another."""
        while connection.stream is None and not connection.pending:
            head, found, rest = connection.inbox.partition(b"\r\n\r\n")
            if not found:
                return
            length = _length(head)
            if length is None:
                self._send(connection, _json({"error": "a request needs Content-Length"}, b"411 Length Required"))
                return
            if len(rest) < length:
                return
            connection.inbox = rest[length:]
            self._answer(connection, head, rest[:length])

    def _answer(self, connection: Connection, head: bytes, body: bytes) -> None:
        method, _, path = head.split(b"\r\n", 1)[0].rpartition(b" ")[0].partition(b" ")
        self.stats.requests += 1
        ask = wire.Ask.read(body) if method == b"POST" and path in _ASKED else None
        if ask is None:
            self._send(connection, self._small(method, path))
        elif b'"stream":true' in body.replace(b" ", b""):
            lines = path == b"/api/chat"
            self._start(connection, Stream(ask, time.monotonic(), usage=b'"include_usage"' in body, lines=lines))
        else:
            self._send(connection, _json(wire.collected(ask.n)))

    def _small(self, method: bytes, path: bytes) -> bytes:
        if method == b"GET" and path == b"/stats":
            return _json(asdict(self.stats))
        if method == b"GET" and path in (b"/v1/models", b"/models"):
            return _json(_MODELS)
        if method == b"GET" and path in (b"/health", b"/"):
            return _json({})
        return _json({"error": {"message": "not here", "type": "not_found", "code": 404}}, b"404 Not Found")

    # --- streams ----------------------------------------------------------------------------------------------------

    def _start(self, connection: Connection, stream: Stream) -> None:
        self.stats.started += 1
        self.stats.alive += 1
        connection.stream, connection.last = stream, False
        if stream.ask.rate:
            self._schedule(connection, stream)
        else:
            self._fast[connection.sock.fileno()] = connection

    def _schedule(self, connection: Connection, stream: Stream) -> None:
        heapq.heappush(self._due, (stream.due, next(self._order), connection, stream))

    def _tick(self, connection: Connection, stream: Stream) -> None:
        if not connection.pending:  # else its reader lags, and it stands still
            self._advance(connection, stream)
        if connection.stream is stream and not connection.last:
            stream.postpone(time.monotonic())
            self._schedule(connection, stream)

    def _advance(self, connection: Connection, stream: Stream) -> None:
        before = stream.number
        data, connection.last = stream.next(time.monotonic())
        self.stats.tokens += stream.number - before
        self._send(connection, data)
        if connection.last and not connection.pending:
            self._finished(connection)

    def _finished(self, connection: Connection) -> None:
        if connection.stream is None:  # lost meanwhile
            return
        connection.stream = None
        self._fast.pop(connection.sock.fileno(), None)
        self.stats.alive -= 1
        self.stats.finished += 1
        self._requests(connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return
        self.stats.bytes += sent
        if sent < len(data):
            connection.pending = memoryview(data)[sent:]
            fd = connection.sock.fileno()
            self._fast.pop(fd, None)
            self._epoll.modify(fd, _WATCHED | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.sock.send(connection.pending)
        except BlockingIOError:
            return
        except OSError:
            self._lost(connection)
            return
        self.stats.bytes += sent
        connection.pending = connection.pending[sent:]
        if connection.pending:
            return
        fd = connection.sock.fileno()
        self._epoll.modify(fd, _WATCHED)
        if connection.stream is None:
            self._requests(connection)
        elif connection.last:
            self._finished(connection)
        elif connection.stream.ask.rate == 0:
            self._fast[fd] = connection


def _length(head: bytes) -> int | None:
    """The length of a request's body; None if it comes in chunks, which this server does not read."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
        if name.lower() == b"transfer-encoding":
            return None
    return 0


def _json(answer: object, status: bytes = b"200 OK") -> bytes:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    head = b"HTTP/1.1 %b\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def main() -> None:
    """Listen on the port that is named, or any free one."""
    server = Server(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    wire.writes(1), wire.writes(16)
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    sys.stdout.write(f"listening {server.port}\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    main()
