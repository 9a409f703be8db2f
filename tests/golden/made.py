"""What Edge makes of the golden streams, kept beside them: their canonical events, and those in each client's surface.

In: ``<name>.sse`` or ``<name>.ndjson``. Out: ``<name>.events.json`` and ``<name>.encoded.txt``; to write all of them
anew, after a change that is meant, and to read the difference:

    PYTHONPATH=.:tests python tests/golden/made.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from support.canonical import answering, joined
from support.specs import DECODERS, ENCODERS

from edge.protocol import events as canonical
from edge.protocol.batch import Usage
from edge.protocol.codec import SseCodec
from edge.protocol.dialects import DIALECTS
from edge.protocol.events import Event, Finish
from edge.protocol.surface import Surface

GOLDEN = Path(__file__).parent
MAX_EVENT = 2**20
SEVERAL = (Surface.CHAT, Surface.COMPLETIONS)  # whose answers may have more than one choice
_PREFIXES = {"ollama_chat": Surface.OLLAMA_CHAT, "ollama_generate": Surface.OLLAMA_GENERATE}
_MOMENTS = re.compile(rb'("created_at":")[^"]*"|("(?:total|prompt_eval|eval)_duration":)\d+')


# The arguments of these calls are no JSON object (a model with random weights), which has no form in Ollama's surface.
NO_OBJECT = frozenset({"chat_tools_required", "chat_tool_named"})


def surface_of(path: Path) -> Surface:
    """The surface that a golden file is in, by its name."""
    ollama = next((surface for prefix, surface in _PREFIXES.items() if path.stem.startswith(prefix)), None)
    return ollama or Surface(path.stem.split("_")[0])


def streams() -> list[Path]:
    """Those in the surfaces that can be decoded."""
    found = [*GOLDEN.glob("*/*.sse"), *GOLDEN.glob("*/*.ndjson")]
    return sorted(path for path in found if surface_of(path) in DECODERS and path.stem not in NO_OBJECT)


def decoded(path: Path, *, at_once: bool) -> tuple[list[Event], Usage | None]:
    """The canonical events of a stream, in one read or in one for each event; and the usage."""
    surface, data = surface_of(path), path.read_bytes()
    codec, decoder = DIALECTS[surface].codec(answering(surface).prepared, MAX_EVENT, frozenset()), DECODERS[surface]()
    assert isinstance(codec, SseCodec)
    codec.collect(decoder)
    mark = b"\n" if path.suffix == ".ndjson" else b"\n\n"
    for piece in [data] if at_once else [event + mark for event in data.split(mark) if event]:
        codec.feed(piece)
    return joined(decoder.events), codec.usage


def in_one_body(path: Path) -> tuple[list[Event], Usage | None]:
    """The canonical events of the answer that belongs to a stream, and the usage."""
    decoder = DECODERS[surface_of(path)]()
    usage = decoder.whole(orjson.loads(path.with_suffix(".json").read_bytes()))
    return decoder.events, usage


def encoded(events: list[Event], usage: Usage | None) -> Iterator[tuple[Surface, bytes]]:
    """They, as each client gets them that could have asked for them."""
    choices = sum(isinstance(event, Finish) for event in events)
    for surface, make in ENCODERS.items():
        if choices > 1 and surface not in SEVERAL:
            continue
        encoder = make(answering(surface, choices))
        pieces = [piece for event in events for piece in encoder.add(event)] + encoder.end(usage)
        whole = b"".join(map(encoder.frame, pieces)) + encoder.format.terminator
        yield surface, _MOMENTS.sub(lambda match: (match[1] and match[1] + b'"') or match[2] + b"0", whole)


def events_file(events: list[Event], usage: Usage | None) -> bytes:
    """One line for each event, without the fields that are as ever; then the usage."""
    told = [{"event": type(event).__name__, **_without_defaults(event)} for event in events]
    counted = {"usage": None if usage is None else usage}
    return b"[\n" + b",\n".join(orjson.dumps(line) for line in [*told, counted]) + b"\n]\n"


def _without_defaults(event: Event) -> dict[str, Any]:
    usual = event._field_defaults
    return {name: value for name, value in event._asdict().items() if name not in usual or value != usual[name]}


def read_events_file(data: bytes) -> tuple[list[Event], Usage | None]:
    """The events and the usage that such a file holds."""
    *told, counted = orjson.loads(data)
    events = [getattr(canonical, line.pop("event"))(**line) for line in told]
    return events, None if counted["usage"] is None else Usage(**counted["usage"])


def encoded_file(events: list[Event], usage: Usage | None) -> bytes:
    """All surfaces, one after the other."""
    return b"".join(b"=== %b\n%b" % (surface.encode(), data) for surface, data in encoded(events, usage))


def main() -> None:
    """Write all files anew."""
    for path in streams():
        events, usage = decoded(path, at_once=False)
        path.with_suffix(".events.json").write_bytes(events_file(events, usage))
        path.with_suffix(".encoded.txt").write_bytes(encoded_file(events, usage))


if __name__ == "__main__":
    main()
