"""The model server that the simulator plays: a request in, the bytes of its answer out, as they would come.

In: the surface and body of a request. Out: a ``Reply``: the head, the pieces of the body, and how it ends. Must not:
wait, or do I/O.
Format: https://platform.openai.com/docs/api-reference, of chat completions, completions and embeddings.
"""

import base64
import hashlib
import math
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import orjson

from edge.errors import BadRequest, EdgeError, NotFound
from edge.policy.routing import printable
from edge.protocol.canonical import Ask, Thinking
from edge.protocol.chat import parse as chat_parse
from edge.protocol.chat.collect import ChatCollector, CompletionsCollector
from edge.protocol.events import Event
from edge.protocol.fields import Fields
from edge.protocol.shapes import openai_body
from edge.protocol.sse import DONE, encode
from edge.protocol.surface import Surface
from edge.upstream.relay.connection import Head
from edge.upstream.simulator.chunks import ChatChunks, Chunk, Chunks, CompletionsChunks
from edge.upstream.simulator.models import ENDINGS, MODELS, SCRIPT, Ending, prompt_words, say, words

_MOST_CHOICES = 128
_DIMENSIONS = 8
_MOST_DIMENSIONS = 4096
_BROKEN: dict[str, Any] = {
    "error": {"message": "the simulated model broke", "type": "server_error", "param": None, "code": 500}
}

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        pieces: What each network read brings; an empty one is a moment in which nothing comes.
        ending: What follows the last piece; after ``ERROR``, as after ``WHOLE``, the body has ended.
    """

    head: Head
    pieces: Iterator[bytes]
    ending: Ending = Ending.WHOLE


def models(*, scripted: bool) -> tuple[str, ...]:
    """The models there are; ``scripted``: also the one that says what its script says."""
    return (SCRIPT, *MODELS) if scripted else MODELS


def reply(surface: Surface, body: bytes, script: str | None) -> Reply:
    """What is answered to a request in a surface that the simulator speaks."""
    try:
        return _REPLIES[surface](orjson.loads(body), script)
    except EdgeError as error:
        return _whole(openai_body(error), error.status)


def _whole(answer: Body, status: int = 200) -> Reply:
    return Reply(_head("application/json", status), iter([orjson.dumps(answer)]))


def _head(content_type: str, status: int = 200) -> Head:
    return Head(status, "", {"content-type": content_type})


def _model(named: str | None, script: str | None) -> str:
    """The model that is asked; the first one if none is named.

    Raises:
        NotFound: there is none of that name.
        BadRequest: it is the one that always says so.
    """
    there = models(scripted=script is not None)
    model = there[0] if named is None else named
    if model not in there:
        message = f"the model '{printable(model)}' does not exist; there are: {', '.join(there)}"
        raise NotFound(message, param="model", code="model_not_found")
    if model == "error":
        raise BadRequest("the simulated model 'error' refuses every request", param="model")
    return model


# --- chat and completions -------------------------------------------------------------------------------------------


def _chat(body: Body, script: str | None) -> Reply:
    ask = chat_parse.parse(body)
    ask.model = _model(ask.model, script)
    return _generated(body, [ask] * _bounded(ask.n or 1), prompt_words(ask), script, ChatChunks)


def _completions(body: Body, script: str | None) -> Reply:
    fields = Fields(body)
    ask = Ask(
        model=_model(fields.text("model"), script),
        max_tokens=fields.whole("max_tokens", 1),
        stop=fields.texts("stop"),
        n=fields.whole("n", 1),
        thinking=Thinking(enabled=False),
    )
    prompts = _texts(fields, "prompt")
    count = ask.n or 1
    _bounded(count * len(prompts))
    asks = [replace(ask, prompt=prompt) for prompt in prompts for _ in range(count)]
    return _generated(body, asks, _count(prompts), script, CompletionsChunks)


def _texts(fields: Fields, name: str) -> list[str]:
    given = fields.any(name)
    given = [given] if isinstance(given, str) else given
    if not given or not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise fields.wrong(name, "required, a string or a list of strings; the simulator takes no token numbers")
    return given


def _count(texts: list[str]) -> int:
    return sum(1 for text in texts for _ in words(text))


def _bounded(choices: int) -> int:
    if choices > _MOST_CHOICES:
        raise BadRequest(f"n: at most {_MOST_CHOICES} choices, but there would be {choices}", param="n")
    return choices


def _generated(body: Body, asks: list[Ask], prompt: int, script: str | None, kind: type[Chunks]) -> Reply:
    """One choice for each of ``asks``, which are of one model; ``prompt`` is their length in tokens."""
    model = asks[0].model or ""
    chunks = kind(uuid.uuid4().hex, model, int(time.time()))
    pieces = _chunked(chunks, [say(model, ask, script, number) for number, ask in enumerate(asks)], prompt)
    ending = ENDINGS.get(model, Ending.WHOLE)
    if not body.get("stream"):
        return Reply(_head("application/json"), _collected(pieces, ending, kind.collector()), ending)
    options = body.get("stream_options")
    usage = isinstance(options, dict) and bool(options.get("include_usage"))
    return Reply(_head("text/event-stream"), _streamed(pieces, ending, usage=usage), ending)


def _chunked(chunks: Chunks, choices: list[Iterator[Event]], prompt: int) -> Iterator[list[Chunk]]:
    """The chunks of an answer, each time those that come together: a token of each choice; at last the usage."""
    begun = [chunk for number in range(len(choices)) for chunk in chunks.begin(number)]
    for events in zip_longest(*choices):
        yield begun + [chunks.event(event) for event in events if event is not None]
        begun = []
    yield [chunks.usage(prompt)]


def _streamed(pieces: Iterator[list[Chunk]], ending: Ending, *, usage: bool) -> Iterator[bytes]:
    for chunks in pieces:
        if chunks[0]["choices"]:
            yield b"".join(map(encode, chunks))
        elif ending is Ending.WHOLE:
            yield encode(chunks[0]) * usage + DONE
    if ending is Ending.ERROR:
        yield encode(_BROKEN)


def _collected(
    pieces: Iterator[list[Chunk]], ending: Ending, collector: ChatCollector | CompletionsCollector
) -> Iterator[bytes]:
    for chunks in pieces:
        for chunk in chunks:
            collector.add(chunk)
        yield b""
    if ending is Ending.ERROR:
        yield orjson.dumps(_BROKEN)
    elif ending is Ending.WHOLE:
        yield orjson.dumps(collector.answer())


# --- embeddings -----------------------------------------------------------------------------------------------------


def _embeddings(body: Body, script: str | None) -> Reply:
    """Texts that share words are near each other, whatever the model."""
    fields = Fields(body)
    model = _model(fields.text("model"), script)
    texts = _texts(fields, "input")
    size = fields.whole("dimensions", 1, _MOST_DIMENSIONS) or _DIMENSIONS
    as_base64 = fields.one_of("encoding_format", "float", "base64") == "base64"
    vectors = [_vector(text, size) for text in texts]
    data = [
        {"object": "embedding", "index": number, "embedding": _packed(vector) if as_base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    count, ending = _count(texts), ENDINGS.get(model, Ending.WHOLE)
    usage = {"prompt_tokens": count, "total_tokens": count}
    answered = {"object": "list", "data": data, "model": model, "usage": usage}
    pieces = {Ending.WHOLE: answered, Ending.ERROR: _BROKEN}
    return Reply(_head("application/json"), iter([orjson.dumps(pieces[ending])] if ending in pieces else ()), ending)


def _vector(text: str, size: int) -> list[float]:
    """Of length 1: the sum of a direction for each word."""
    total = [0.0] * size
    for word in text.lower().split() or [text]:
        parts = struct.unpack(f"<{size}h", hashlib.shake_256(word.encode()).digest(2 * size))
        total = [whole + part for whole, part in zip(total, parts, strict=True)]
    length = math.hypot(*total) or 1.0
    return [part / length for part in total]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


_REPLIES: Mapping[Surface, Callable[[Body, str | None], Reply]] = {
    Surface.CHAT: _chat,
    Surface.COMPLETIONS: _completions,
    Surface.EMBEDDINGS: _embeddings,
}
