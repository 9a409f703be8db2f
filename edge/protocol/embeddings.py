"""Embeddings: OpenAI's and Ollama's requests and answers, made of each other.

In: decoded bodies. Out: decoded bodies. Must not: change a vector, but for the float32 that base64 holds.
"""

import base64
import struct
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import orjson

from edge.errors import UpstreamBroken
from edge.protocol.batch import count_in
from edge.protocol.canonical import Target
from edge.protocol.fields import Fields
from edge.protocol.json_text import dumps, loads
from edge.protocol.shapes import is_error
from edge.protocol.surface import Surface

Body = dict[str, Any]
Reshape = Callable[[Body], Body]  # can be passed to another process


def reshaped(raw: bytes, reshape: Reshape) -> bytes | UpstreamBroken | None:
    """A whole answer made the client's, or why it cannot be; None if it is to be looked at for an error.

    For the process that reads large bodies: what it gives can be passed back.
    """
    try:
        decoded = loads(raw)
        if not isinstance(decoded, dict) or is_error(decoded):
            return None
        return dumps(reshape(decoded))
    except UpstreamBroken as broken:
        return broken
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def translate(surface: Surface, body: Body, to: Target) -> tuple[Body, tuple[str, ...], Reshape]:
    """The request for the other API, what was dropped of it, and how its answer becomes the client's.

    Raises:
        BadRequest: a field is malformed, or cannot be expressed there.
    """
    if surface is Surface.EMBEDDINGS:
        return _to_ollama(body, to)
    return _to_openai(body) if surface is Surface.OLLAMA_EMBED else _one_to_openai(body)


def _to_ollama(body: Body, to: Target) -> tuple[Body, tuple[str, ...], Reshape]:
    fields = Fields(body)
    model, dimensions = fields.text("model"), fields.whole("dimensions", 1)
    as_base64 = fields.one_of("encoding_format", "float", "base64") == "base64"
    asked: Body = {"model": model, "input": _inputs(fields)}
    options = fields.object("options")
    keep_alive, truncate = fields.any("keep_alive"), fields.flag("truncate")
    given = {**({"num_ctx": to.num_ctx} if to.num_ctx else {}), **({} if options is None else options.body)}
    for name, value in (
        ("dimensions", dimensions),
        ("keep_alive", to.keep_alive if keep_alive is None else keep_alive),
        ("truncate", False if truncate is None and to.refuses_cuts == "always" else truncate),
        ("options", given or None),
    ):
        if value is not None:
            asked[name] = value

    return asked, tuple(fields.rest()), partial(_as_openai, _count(asked["input"]), model, as_base64)


def _as_openai(texts: int, model: str | None, as_base64: bool, answer: Body) -> Body:  # noqa: FBT001 - for partial alone
    vectors = answer.get("embeddings")
    if not isinstance(vectors, list):
        raise UpstreamBroken("it sent no embeddings")
    _check_count(vectors, texts)
    tokens = count_in(answer, "prompt_eval_count") or 0
    data = [
        {"object": "embedding", "index": number, "embedding": _base64(vector) if as_base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": answer.get("model") or model, "usage": usage}


def _to_openai(body: Body) -> tuple[Body, tuple[str, ...], Reshape]:
    fields = Fields(body)
    model, dimensions = fields.text("model"), fields.whole("dimensions", 1)
    asked: Body = {"model": model, "input": _inputs(fields), "encoding_format": "float"}
    if dimensions is not None:
        asked["dimensions"] = dimensions
    fields.known("stream")
    return asked, tuple(fields.rest()), partial(_as_ollama, _count(asked["input"]), model)


def _as_ollama(texts: int, model: str | None, answer: Body) -> Body:
    vectors = _in_order(answer.get("data"))
    _check_count(vectors, texts)
    usage = answer.get("usage")
    fields: Body = {"model": answer.get("model") or model, "embeddings": vectors}
    if (tokens := count_in(usage, "prompt_tokens")) is not None:
        fields["prompt_eval_count"] = tokens
    return fields


def _one_to_openai(body: Body) -> tuple[Body, tuple[str, ...], Reshape]:
    """Ollama's older API: one ``prompt``, one ``embedding``."""
    fields = Fields(body)
    asked: Body = {
        "model": fields.text("model"),
        "input": fields.needed_text("prompt"),
        "encoding_format": "float",
    }
    fields.known("stream")
    return asked, tuple(fields.rest()), _as_one


def _as_one(answer: Body) -> Body:
    vectors = _in_order(answer.get("data"))
    _check_count(vectors, 1)
    return {"embedding": vectors[0]}


def _in_order(data: Any) -> list[Any]:
    """The vectors in the order of their texts: by ``index``, which Ollama's answers lack; without it, as they lie."""
    if not isinstance(data, list) or not all(isinstance(item, dict) and "embedding" in item for item in data):
        raise UpstreamBroken("it sent no embeddings")
    places = [place if type(place := item.get("index")) is int else at for at, item in enumerate(data)]
    if sorted(places) != list(range(len(data))):
        raise UpstreamBroken("it sent embeddings of which it is unclear to which texts they belong")
    return [item["embedding"] for _, item in sorted(zip(places, data, strict=True), key=itemgetter(0))]


def _count(given: Any) -> int:
    return 1 if isinstance(given, str) else len(given)


def _check_count(vectors: list[Any], texts: int) -> None:
    if len(vectors) != texts:
        raise UpstreamBroken(f"it sent {len(vectors)} embeddings for {texts} texts")


def _inputs(fields: Fields) -> Any:
    given = fields.any("input")
    if given in ("", []):
        raise fields.wrong("input", "must not be empty")
    if isinstance(given, list) and "" in given:
        raise fields.wrong(f"input.{given.index('')}", "must not be empty")
    if isinstance(given, str) or (isinstance(given, list) and all(isinstance(item, str) for item in given)):
        return given
    if given is None:
        raise fields.wrong("input", "required, a string or a list of strings")
    raise fields.wrong("input", "must be a string or a list of strings; this upstream takes no token numbers")


def _base64(vector: Any) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (TypeError, struct.error):
        raise UpstreamBroken("it sent an embedding that is not a list of numbers") from None
