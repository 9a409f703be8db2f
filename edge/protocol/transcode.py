"""Crossing surfaces: a client's request for an upstream that speaks another, and that upstream's answer back.

In: a prepared request and the surface to cross to; then network reads. Out: the other surface's body, and batches in
the client's own. Must not: know any dialect but by the tables; N + N codecs, never N times N.

A piece of text or thought is put as it came into the other surface's event; all else is decoded and encoded.
"""

from collections.abc import Callable
from dataclasses import replace

import orjson
from typing_extensions import override

from edge.errors import BadRequest, UpstreamBroken
from edge.protocol import embeddings
from edge.protocol.batch import Batch, Measured, Usage
from edge.protocol.canonical import Rendering, Target
from edge.protocol.dialect import BadStream, Codec, Collector, Said, TextCollector
from edge.protocol.dialects import SPECS
from edge.protocol.events import Event, Start, short
from edge.protocol.history import settle
from edge.protocol.json_text import dumps, loads
from edge.protocol.request import Prepared, Translated, prepare
from edge.protocol.sse import one_line
from edge.protocol.surface import EMBEDS, OLLAMA, Surface
from edge.protocol.surface_format import Opened, Progress
from edge.protocol.transcode_ports import Answering, Decoder, Encoder, Piece

_LONGEST_BYTES = 16 * 1024  # of a text that is put into one event as it is, on some surfaces twice


def target(surface: Surface, native: frozenset[Surface], *, raw: bool = False) -> Surface | None:
    """The surface in which an upstream that speaks ``native`` is asked for ``surface``; None if it cannot be.

    With ``raw`` the request has a prompt that is to be continued as it stands.
    """
    if surface in native:
        return surface
    if raw and Surface.COMPLETIONS in native:
        return Surface.COMPLETIONS
    return next((through for through in SPECS[surface].through if through in native), None)


def reachable(native: frozenset[Surface]) -> frozenset[Surface]:
    """All surfaces that an upstream can answer which speaks ``native``."""
    return frozenset(surface for surface in Surface if target(surface, native) is not None)


def translate(prepared: Prepared, to: Target) -> Translated:
    """Write a client's request for an upstream that speaks ``to.surface``.

    Raises:
        BadRequest: a field is malformed, or cannot be expressed there and would be missed.
    """
    body = loads(prepared.body)
    if prepared.model is not None and to.surface not in OLLAMA:  # an Ollama takes, and echoes, the client's spelling
        body["model"] = prepared.model
    if prepared.surface in EMBEDS:
        asked, dropped, reshape = embeddings.translate(prepared.surface, body, to)
        return Translated(dumps(asked), dropped, reshape=reshape)
    parse, render = SPECS[prepared.surface].parse, SPECS[to.surface].render
    if parse is None or render is None:  # ``target`` names no such pair
        raise NotImplementedError(f"no way from {prepared.surface} to {to.surface}")
    ask = parse(body)
    if ask.prompt is not None and not to.surface.facts.continues:
        raise Rendering(ask, to).refuse("prompt", f"{to.name} cannot continue a prompt as it stands")
    unthought = () if ask.thinking is None or not prepared.thoughtless else (ask.names.get("thinking", "thinking"),)
    if unthought:
        ask.thinking = None
    settled = settle(ask.messages, to)
    ask.messages = settled.messages
    rendering = render(ask, to)
    dropped = tuple(dict.fromkeys([*rendering.dropped, *settled.dropped, *unthought]))
    changed = tuple(dict.fromkeys([*prepared.changed, *settled.changed, *rendering.changed]))
    return Translated(_written(rendering), dropped, changed, echo=ask.echo)


def _written(rendering: Rendering) -> bytes:
    try:
        return dumps(rendering.body)
    except orjson.JSONEncodeError:  # the depth of what came as a string has been bounded by nobody yet
        raise rendering.refuse("messages", "the arguments of a tool call are nested too deep") from None


def prepare_crossed(
    surface: Surface,
    raw: bytes,
    targets: tuple[Target, ...],
    most: Callable[[str | None], int | None] | None = None,
    name_of: Callable[[str], str] = str,
) -> Prepared:
    """``prepare``, and the request written for each of the targets: all of it in the process that reads large bodies.

    Raises:
        BadRequest: see ``prepare``; what one target cannot express is left out, and is found out when it is asked.
    """
    prepared = prepare(surface, raw, most, name_of)
    crossed = []
    for to in targets:
        if to.needed_for and prepared.format_field not in to.needed_for:
            continue
        try:
            crossed.append((to, translate(prepared, to)))
        except BadRequest:
            continue
    return replace(prepared, crossed=tuple(crossed))


def transcoder(source: Codec, spoken: Surface, answering: Answering) -> "Transcoder":
    """A codec that reads ``spoken`` by ``source``, and gives the surface that the request came in."""
    surface = answering.prepared.surface
    decoder, encoder = SPECS[spoken].decoder, SPECS[surface].encoder
    if decoder is None or encoder is None:
        raise NotImplementedError(f"no way from {spoken} to {surface}")
    return Transcoder(source, decoder(), encoder(answering), one=not surface.facts.choices)


class Transcoder(Codec):
    """A codec over another one: decoder of one dialect, encoder of another; see ``dialect.Codec``.

    Args:
        one: The client's surface has one choice. It gets the first that comes; others, which nobody asked for, go.
    """

    __slots__ = (
        "_begun",
        "_choice",
        "_chose",
        "_collector",
        "_decoder",
        "_encoder",
        "_ended",
        "_one",
        "_several",
        "_source",
        "_texts",
        "_whole_usage",
    )

    def __init__(self, source: Codec, decoder: Decoder, encoder: Encoder, *, one: bool) -> None:
        self._source = source
        self._decoder = decoder
        self._encoder = encoder
        self._collector: Collector | None = None
        self._texts: TextCollector | None = None  # the same, if it is one
        self._ended = False
        self._begun = False  # pieces of plain text may be turned without being decoded
        self._one = one
        self._choice = 0  # that the client gets, if its surface has one
        self._chose = False
        self._several = False  # the upstream gives more than that one
        self._whole_usage: Usage | None = None
        source.collect(decoder)

    @property
    def usage(self) -> Usage | None:
        """What the upstream has reported."""
        return self._whole_usage or self._source.usage

    @property
    def measured(self) -> Measured | None:
        """What the upstream has measured."""
        return self._source.measured

    @property
    def unknown_finish(self) -> str | None:
        """See ``dialect.Codec``."""
        return self._source.unknown_finish

    @property
    @override
    def note(self) -> str | None:
        return self._source.note

    def plain(self, data: bytes) -> int:  # noqa: ARG002 - the bytes are not the client's
        """Never."""
        return 0

    def text(self, data: bytes) -> tuple[Said, bytes, int]:  # noqa: ARG002 - there is no second translation
        """Never."""
        return "", b"", 0

    @override
    def feed(self, data: bytes) -> Batch:
        fields, count = self.turned(data)
        return Batch(fields, 1 if fields else 0, count) if count else self.walk(data)

    def turned(self, data: bytes) -> tuple[bytes, int]:
        """The one event of the client's surface for a read that is plain text, and how many events the read was.

        Otherwise 0, and the read is still to be walked. Most reads are such a piece, which is put as it is into the
        other's event: 1.5 µs, where decoding and encoding takes 15. The event may be empty.
        """
        if not self._begun:
            return b"", 0
        said, escaped, count = self._source.text(data)
        if not count or len(escaped) > _LONGEST_BYTES:
            return b"", 0
        texts = self._texts
        if (texts is not None or b"\\" in escaped or b'"' in escaped) and not _is_string(escaped):
            return b"", 0
        fields = self._encoder.plain(said, escaped if escaped.isascii() else one_line(escaped))
        if fields is None:
            return b"", 0
        if texts is not None and said == "text":
            texts.add_text(escaped)
        return fields, count

    def walk(self, data: bytes) -> Batch:
        """``feed`` for any other read."""
        try:
            batch = self._source.feed(data)
        except BadStream as bad:
            bad.before = self._turned(bad.before)
            raise
        return self._turned(batch)

    @override
    def eof(self) -> Batch:
        """An answer that is finished gets its end here if it had no terminator."""
        batch = self._source.eof()
        finished = batch.error is None and not batch.terminated and self._source.finished(clean_eof=True)
        return self._turned(batch, finished=finished)

    @override
    def finished(self, *, clean_eof: bool) -> bool:
        return self._ended

    @override
    def collect(self, collector: Collector) -> None:
        """Of the client's surface."""
        self._collector = collector
        self._texts = collector if isinstance(collector, TextCollector) else None

    @override
    def answer(self) -> dict[str, object]:
        return {} if self._collector is None else self._collector.answer()

    @override
    def begun(self, opened: Opened) -> None:
        self._encoder.begun(opened)

    @override
    def progress(self) -> Progress:
        """The terminator is part of the last batch."""
        return replace(self._encoder.progress(), ended=True)

    def reshaped(self, answer: dict[str, object]) -> dict[str, object]:
        """A whole answer of the upstream's surface, in the client's; a collector must have been set.

        Raises:
            UpstreamBroken: there is no answer in it.
        """
        self._whole_usage = self._decoder.whole(answer)
        events = self._taken()
        if self._decoder.unreadable:
            raise UpstreamBroken(_unreadable(self._decoder))
        if not events:
            raise UpstreamBroken("the upstream sent JSON that is no answer")
        try:
            for event in events:
                self._encode(self._encoder.add(event))
        except BadStream as bad:
            raise UpstreamBroken(str(bad)) from None
        self._encode(self._encoder.end(self._whole_usage))
        return self.answer()

    def _turned(self, batch: Batch, *, finished: bool = False) -> Batch:
        parts: list[bytes] = []
        if self._decoder.unreadable:
            raise BadStream(_unreadable(self._decoder))
        if self._decoder.events:
            events = self._taken()
            try:
                for event in events:
                    for piece in short(event):
                        parts += self._encode(self._encoder.add(piece))
            except BadStream as bad:
                bad.before = Batch(b"".join(parts), len(parts), batch.tokens)
                raise
        if batch.terminated and batch.error is None:
            finished = self._source.finished(clean_eof=False)
        tail = b""
        if finished and not self._ended:
            self._ended = True
            parts += self._encode(self._encoder.end(self._source.usage))
            tail = self._encoder.format.terminator
        begun = self._begun or (batch.tokens > 0 and (self._collector is None or self._texts is not None))
        self._begun = begun and not self._several
        if tail:
            parts.append(tail)  # an event like the others to whoever counts them
        terminated = (batch.terminated and batch.error is None) or finished
        return Batch(b"".join(parts), len(parts), batch.tokens, terminated=terminated, error=batch.error)

    def _taken(self) -> list[Event]:
        """What the decoder has found, of the choices that the client's surface has."""
        events, self._decoder.events = self._decoder.events, []
        for event in events:
            if getattr(event, "choice", 0) or self._choice:
                return self._chosen(events)
            self._chose = self._chose or not isinstance(event, Start)
        return events

    def _chosen(self, events: list[Event]) -> list[Event]:
        """Where there is more than choice 0: for a surface with one choice that which came first, as its only one."""
        self._several = True
        if not self._one:
            return events
        chosen: list[Event] = []
        for event in events:
            if isinstance(event, Start):
                chosen.append(event)
                continue
            if not self._chose:
                self._chose, self._choice = True, event.choice
            if event.choice == self._choice:
                chosen.append(event._replace(choice=0))
        return chosen

    def _encode(self, pieces: list[Piece]) -> list[bytes]:
        if self._collector is not None:
            for _, payload in pieces:
                self._collector.add(payload)
        frame = self._encoder.frame
        return [frame(piece) for piece in pieces]


def _is_string(escaped: bytes) -> bool:
    """Whether it is all of a JSON string; half a character needs its other half, which comes in another event."""
    try:
        orjson.loads(b'"%b"' % escaped)
    except orjson.JSONDecodeError:
        return False
    return True


def _unreadable(decoder: Decoder) -> str:
    return f"it sent {decoder.unreadable}, which this client's API cannot express"
