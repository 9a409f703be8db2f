"""The upstream port: open a call, and batches are pushed into a sink until it ends.

An upstream pushes; it never queues. It calls the sink from the event loop, in order: ``connected`` once, ``tokens`` or
``feed`` for each network read, ``end`` exactly once, and after ``end`` or ``abort`` nothing at all. It must not decide:
retries, deadlines and outcomes belong to the exchange.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.batch import Batch
from edge.protocol.dialect import Codec
from edge.protocol.ollama.truncation import Context
from edge.protocol.surface import Surface

JSON_TYPE = "application/json"


class Upload:
    """A request body that is passed on as the client brings it.

    Attributes:
        content_type: What it is sent as.
        length: In bytes; None if the client has not said.
        touched: Some of it has been read, hence may be on its way: no other upstream can be asked.
    """

    __slots__ = ()

    content_type: str
    length: int | None
    touched: bool

    async def read(self) -> bytes:
        """More of it; empty at its end.

        Raises:
            EdgeError: the client is too slow, or what it sends is of no use.
            ConnectionError: it left.
        """
        raise NotImplementedError


Apart = Callable[..., Awaitable[Any]]  # does ``work(body, *arguments)`` in another process


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one upstream, in a surface that it speaks.

    Attributes:
        surface: Which of the upstream's exact routes to post to.
        body: The JSON body, ready to send.
        upload: Sent instead of ``body``; the answer may then be text as well.
        codec: Fed with the events that come back; None where one JSON body is expected.
        headers: Allowlisted headers to send besides the upstream's own (``x-request-id`` …).
        max_answer_bytes: Bound on a JSON body that is read whole.
        takes_body: One JSON body is an answer too; for a client that wants a stream it is not.
        whole: The server is asked to generate the answer and to send it in one body, once it is finished.
        reshape: Makes the client's answer of such a body, where the upstream speaks another surface than the client.
        dropped: Fields of the client's request that this upstream has no place for.
        changed: What was changed of the prompt, by the names that ``x-edge-changed`` has for it.
        context: What is known of the prompt's length, where the server may cut it silently.
        buffers_calls: The request has tools, and the server may be silent while it writes a call of one.
        apart: Where a large answer is reshaped, if ``reshape`` can be passed there.
    """

    surface: Surface
    body: bytes
    codec: Codec | None
    headers: Mapping[str, str]
    max_answer_bytes: int
    takes_body: bool
    whole: bool = False
    reshape: Callable[[dict[str, object]], dict[str, object]] | None = None
    dropped: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    context: Context | None = None
    upload: Upload | None = None
    buffers_calls: bool = False
    apart: Apart | None = None


class Sink:
    """Where an attempt pushes to. All methods are synchronous and never raise."""

    __slots__ = ()

    def connected(self) -> None:
        """The connection stands and the request is on its way."""
        raise NotImplementedError

    def uploading(self, *, clients_turn: bool) -> None:
        """A streamed request body has moved on: now the client is to bring more of it, or the upstream to go on."""
        raise NotImplementedError

    def answered(self, headers: Mapping[str, str]) -> None:
        """The upstream accepted the request (2xx); allowlisted response headers to pass on."""
        raise NotImplementedError

    def tokens(self, data: bytes, count: int) -> None:
        """A batch that is nothing but ``count`` events of generated content: most are, and this spares the object."""
        raise NotImplementedError

    def feed(self, batch: Batch) -> None:
        """The whole events of one network read."""
        raise NotImplementedError

    def body(self, data: bytes, content_type: str = JSON_TYPE) -> None:
        """The answer came as one body: expected without a codec, else the server's own choice."""
        raise NotImplementedError

    def end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """The attempt is over: DONE, CUT or ERROR (both with the error for the client)."""
        raise NotImplementedError


class Source:
    """The handle on a running attempt."""

    __slots__ = ()

    def pause(self) -> None:
        """Stop reading from the upstream; idempotent."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read again; idempotent."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close the connection now, so that the model stops; idempotent, and nothing is pushed after it."""
        raise NotImplementedError


class Upstream:
    """A model server, or a cloud."""

    __slots__ = ()

    name: str

    def open(self, call: Call, sink: Sink) -> Source:
        """Begin a call; returns at once."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release every connection."""
        raise NotImplementedError
