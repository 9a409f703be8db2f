"""The part of reading a stream that all SSE surfaces share: cut, take the fast path if every event is plain, else walk.

In: network reads. Out: batches. Must not: decode an event that is from the same template as the one before it; that is
what keeps a relayed token at microseconds.
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Protocol

import orjson
from typing_extensions import override

from edge.errors import UpstreamSaid
from edge.protocol.batch import Batch, Measured, Usage
from edge.protocol.dialect import BadStream, Codec, Collector, Said, TooLarge
from edge.protocol.json_text import Halves, loads_strictly
from edge.protocol.sse import Event, EventTooLarge, SseSplitter, events
from edge.protocol.surface_format import Opened, Progress
from edge.protocol.template import EventTemplate

EMPTY = Batch(b"")
_ARGUMENTS = b'"arguments"'
_DECODED = re.compile(rb'"(?:arguments|input)"\s*+:\s*+[^"\s]')  # a call's arguments, unless they are a string
# By the key of a text: what it belongs to. Others are arguments of calls.
_SAID: dict[bytes, Said] = {
    b"content": "text", b"text": "text",
    b"reasoning_content": "thought", b"reasoning": "thought", b"thinking": "thought",
}  # fmt: skip


class Seen(Enum):
    """What one event is to the stream."""

    PRELUDE = 0  # relayed, carries no generated content
    TOKEN = 1
    DROP = 2  # not relayed: a heartbeat, or a chunk the client did not ask for
    END = 3  # the terminator
    HOLD = 4  # not relayed before it is known what comes next; the subclass has it


class SeenError(Exception):
    """The event is the upstream's in-band error.

    Args:
        said: What it says.
        relay: Its bytes are in the surface's shape, so they are passed on.
        final: It is also the surface's regular end (``response.failed``), so no abort has to follow.
    """

    def __init__(self, said: UpstreamSaid, *, relay: bool, final: bool = False) -> None:
        super().__init__(said.message)
        self.said = said
        self.relay = relay
        self.final = final


class Kept:
    """What a walk over a run has kept of it so far."""

    __slots__ = ("_parts", "events", "tokens")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.events = 0
        self.tokens = 0

    def add(self, data: bytes, events: int = 1, tokens: int = 0) -> None:
        """Keep so many events."""
        self._parts.append(data)
        self.events += events
        self.tokens += tokens

    def batch(
        self, *, terminated: bool = False, error: UpstreamSaid | None = None, error_in_data: bool = False
    ) -> Batch:
        """All of it."""
        data = b"".join(self._parts)
        return Batch(data, self.events, self.tokens, terminated=terminated, error=error, error_in_data=error_in_data)


class Splitter(Protocol):
    """Cuts network reads into runs of whole events; see ``sse.SseSplitter``."""

    @property
    def held(self) -> bytearray:
        """What is held of an unfinished event, always the same object."""

    def feed(self, data: bytes) -> bytes:
        """The whole events that ``data`` completes."""

    def rest(self) -> bytes:
        """What is left at the end."""


class SseCodec(Codec):
    """Base of the surfaces' codecs; a subclass observes events, and says what in them is text.

    Args:
        text: See ``EventTemplate``.
        splitter: Another than that of server-sent events, with ``parse`` for its runs.
    """

    __slots__ = (
        "_collector",
        "_count",
        "_halves",
        "_held",
        "_holding",
        "_instead",
        "_latest",
        "_most",
        "_parse",
        "_said",
        "_splitter",
        "_template",
        "measured",
        "note",
        "unknown_finish",
        "usage",
    )

    def __init__(
        self,
        max_event_bytes: int,
        text: re.Pattern[bytes],
        splitter: Splitter | None = None,
        parse: Callable[[bytes, int], Iterator[Event]] = events,
    ) -> None:
        self.usage: Usage | None = None
        self.measured: Measured | None = None
        self.unknown_finish: str | None = None
        self.note: str | None = None
        self._splitter = splitter or SseSplitter(max_event_bytes)
        self._parse = parse
        self._held = self._splitter.held
        self._most = max_event_bytes  # in no longer a read can there be an event to cut
        self._template = EventTemplate(text)
        self._collector: Collector | None = None
        self._latest: Any = None  # the payload of the event at hand, for the collector; None if it was not decoded
        self._count: Callable[[bytes], int] = self._template.count
        self._halves = Halves()
        self._holding = False  # an event, until the next one has come
        self._instead = b""  # to be relayed in place of the event at hand
        self._said: Said = ""  # what the text of the template belongs to

    @override
    def plain(self, data: bytes) -> int:
        """What proves that the events are plain also proves that there is none to cut."""
        return 0 if self._held or len(data) > self._most else self._count(data)

    @override
    def text(self, data: bytes) -> tuple[Said, bytes, int]:
        said = self._said
        if not said or self._held or len(data) > self._most:
            return "", b"", 0
        template = self._template
        if text := template.one(data):
            return said, text, 1
        count = template.count(data)
        return (said, template.text(data), count) if count else ("", b"", 0)

    @override
    def feed(self, data: bytes) -> Batch:
        try:
            whole = self._splitter.feed(data)
        except EventTooLarge as error:
            return self._too_large(error)
        if not whole:
            return EMPTY
        plain = not self._holding and (len(whole) <= self._most or self._alike(whole, 0) == len(whole))
        count = self._count(whole) if plain else 0
        return Batch(whole, count, count) if count else self._walk(whole)

    def _too_large(self, error: EventTooLarge) -> Batch:
        batch = self._walk(error.before)
        if batch.terminated or batch.error is not None:
            return batch
        bad = TooLarge(f"it sent too large an event: {error} (stream.max_event_bytes)")
        bad.before = batch
        raise bad from None

    def eof(self) -> Batch:
        """What the end of the body completes: some servers leave out the last blank line.

        An event that was cut in the middle is dropped, as the SSE format demands; whether that is a loss is
        ``finished``'s to say.
        """
        rest = self._splitter.rest()
        if not rest.strip():
            return EMPTY
        try:
            return self._walk(rest)
        except BadStream as error:
            return error.before

    def _walk(self, whole: bytes) -> Batch:
        """Event by event, but for runs from the template of the event before them."""
        kept = Kept()
        walking = self._parse(whole, self._lead(whole, 0, kept))
        while (event := next(walking, None)) is not None:
            self._begin(event, kept)
            try:
                seen = self._observe(event)
            except SeenError as error:
                if error.relay:
                    self._keep(event, kept)
                return kept.batch(terminated=error.final, error=error.said, error_in_data=error.relay)
            except BadStream as error:
                error.before = kept.batch()
                raise
            if seen is Seen.END:
                if self.finished(clean_eof=False):
                    self._keep(event, kept)  # else the client would take a cut answer for whole
                return kept.batch(terminated=True)
            if seen is Seen.TOKEN:
                self._keep(event, kept, tokens=1)
                if self._is_text(event.raw) and self._template.learn(event.raw):
                    calls = self._template.key.startswith(_ARGUMENTS)  # a name behind them begins another call
                    self._template.strict = calls or self._collector is not None
                    self._said = _SAID.get(self._template.key.split(b'"')[1], "")
                    walking = self._parse(whole, self._lead(whole, event.end, kept))
            elif seen is Seen.PRELUDE:
                self._keep(event, kept)
        return kept.batch()

    def _begin(self, event: Event, kept: Kept) -> None:
        """Another event is to be observed."""
        self._latest = None  # an event that is not decoded, such as `[DONE]`, brings nothing to collect
        if self._holding:
            self._let_go(event, kept)

    def _let_go(self, following: Event | None, kept: Kept) -> None:
        """Keep what ``_observe`` has held; it is followed by that event, or by the end of the body."""
        raise NotImplementedError

    def _lead(self, whole: bytes, at: int, kept: Kept) -> int:
        """Keep what comes from the template at ``at``; where it ends."""
        if self._holding:
            return at
        count, end = self._template.lead(whole, at, self._alike(whole, at))
        if count:
            kept.add(whole[at:end], count, count)
            self._collect_run(whole[at:end])
        return end

    @override
    def collect(self, collector: Collector) -> None:
        self._collector = collector
        count = self._count

        def counted(run: bytes) -> int:
            number = count(run)
            if number:
                self._collect_run(run)
            return number

        self._count = counted

    @override
    def answer(self) -> dict[str, object]:
        return {} if self._collector is None else self._collector.answer()

    @override
    def begun(self, opened: Opened) -> None:
        """Most surfaces have no such event."""

    @override
    def progress(self) -> Progress:
        """On most surfaces nothing depends on it."""
        return Progress()

    def _collect_run(self, run: bytes) -> None:
        """A run from the template, as one event with all its text."""
        if self._collector is not None:
            merged = self._template.merged(run)
            if merged.startswith(b"data: ") and merged.find(b"\n") == len(merged) - 2:
                self._collector.add(self._loads(merged[6:-2]))  # the usual event, of one line
                return
            for event in events(merged):
                self._collector.add(self._loads(event.data))

    def _keep(self, event: Event, kept: Kept, tokens: int = 0) -> None:
        kept.add(self._instead or event.raw, 1, tokens)
        self._instead = b""
        if self._collector is not None and self._latest is not None:
            self._collector.add(self._latest)

    def _alike(self, whole: bytes, at: int) -> int:  # noqa: ARG002 - a subclass looks at it
        """Up to where from ``at`` on an event from the template is like its twins whatever its text is."""
        return len(whole)

    @override
    def finished(self, *, clean_eof: bool) -> bool:
        raise NotImplementedError

    def _decoded(self, event: Event) -> Any:
        """The event's JSON.

        Raises:
            BadStream: it is none.
        """
        decoded = self._loads(event.data)
        if self._collector is not None:
            self._latest = decoded
        return decoded

    def _loads(self, data: bytes) -> Any:
        # Only what a model or a client made up has numbers that a double cannot hold; looking for them in each event
        # would take half as long as decoding it. Most events of a call hold a piece of its JSON, as a string.
        exact = (_ARGUMENTS in data or b'"input"' in data) and _DECODED.search(data) is not None
        try:
            return loads_strictly(data) if exact else orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
        try:
            return self._halves.loads(data)
        except ValueError:
            raise BadStream("the upstream sent a malformed event") from None

    def _is_text(self, token: bytes) -> bool:  # noqa: ARG002 - a subclass looks at it
        """Whether an event like this one holds nothing but text: the next ones are not looked into."""
        return True

    def _observe(self, event: Event) -> Seen:
        """Look at one event.

        Raises:
            BadStream: it is not the surface's.
            SeenError: it is the upstream's error.
        """
        raise NotImplementedError
