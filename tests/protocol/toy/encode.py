"""Toy answers: canonical → client, as a stream or as one object."""

from edge.protocol.toy.format import ToyFormat
from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.dialect import Codec, Collector, Dialect
from edge.protocol.events import Event, Text
from edge.protocol.request import Prepared
from edge.protocol.sse import SSE_TYPE, encode
from edge.protocol.surface import Surface
from edge.protocol.surface_format import SurfaceFormat
from edge.protocol.transcode_ports import Answering, BaseEncoder, Piece


class ToyEncoder(BaseEncoder):
    """Text, and an end."""

    format: type[SurfaceFormat] = ToyFormat

    def __init__(self, answering: Answering) -> None:
        pass

    @override
    def add(self, event: Event) -> list[Piece]:
        return [(None, {"t": event.text})] if isinstance(event, Text) else []

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        return []

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode(piece[1])


class ToyCollector(Collector):
    """The text of a stream."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    @override
    def add(self, event: dict[str, object]) -> None:
        self._texts.append(str(event.get("t", "")))

    @override
    def answer(self) -> dict[str, object]:
        return {"all": "".join(self._texts)}


class ToyDialect(Dialect):
    """``/v1/toy``, which no upstream speaks."""

    surface = Surface("toy")
    stream_type = SSE_TYPE
    format: type[SurfaceFormat] = ToyFormat

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> Codec:
        raise NotImplementedError

    @override
    def collector(self, prepared: Prepared) -> Collector:
        return ToyCollector()
