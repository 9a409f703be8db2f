"""A client's request body: bounded before it is parsed, checked, and rewritten into what the upstream is sent.

In: the raw body of a surface. Out: ``Prepared``. Pure and picklable, so that big bodies can be prepared in another
process (orjson holds the interpreter's lock: 25 MiB stop the event loop for 50 ms, on any thread).
Must not: forward the client's bytes: what was checked is what is sent (duplicate keys, key case, odd encodings).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from edge.errors import BadRequest
from edge.protocol import billing_line, max_tokens, ollama_defaults
from edge.protocol.canonical import Target
from edge.protocol.embeddings import Reshape
from edge.protocol.json_text import dumps, loads, out_of_memory
from edge.protocol.ollama_defaults import Named
from edge.protocol.prompt_size import prompt_tokens
from edge.protocol.surface import GENERATING, OLLAMA, STREAMS_BY_DEFAULT, Surface

MAX_DEPTH = 200  # orjson parses 1,024 levels but writes about 300
MAX_ELEMENTS = 1_000_000  # about 70 ms and 240 MB of Python objects at the worst

# The closing quote is optional: a string without one would else be tried again from each quote in it, for hours.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# Some thousand strings and what is between them: all at once would take 50 times the memory of the body.
_PIECE = re.compile(rb'(?:[^"]*+"(?:[^"\\]++|\\.)*+"?){1,4096}+|[^"]++', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")

# A stream lacks what these ask for, or no server streams it. Such a request goes upstream as it is, and its connection
# is closed if the client leaves. vLLM 0.32 gives kv_transfer_params, prompt_logprobs (chat's echo means them too) and
# routed_experts in whole answers only; SGLang likewise what return_routed_experts asks for.
_UNSTREAMABLE = (
    "prompt_logprobs",
    "echo",
    "best_of",
    "kv_transfer_params",
    "ec_transfer_params",
    "return_routed_experts",
    "routed_experts_prompt_start",
)
_ASKED_BY_ANY_NUMBER = frozenset({"prompt_logprobs", "routed_experts_prompt_start"})  # 0 asks too

# What is read or set here. Servers in Go take keys in any case (even a long s for an s), and the last one wins: such a
# second spelling would undo what was checked.
_READ = frozenset(
    {
        "model", "stream", "stream_options", "n", "messages", "prompt", "raw", "suffix", "background",
        *_UNSTREAMABLE, *max_tokens.NAMES,
    }
)  # fmt: skip
_READ_OLLAMA = _READ | {"keep_alive", "truncate", "tools"}
_READ_OPTIONS = frozenset({"include_usage"})
_TEXTS = ("input", "documents", "texts", "text_2")
NOT_STORED = "no responses are stored here, so that this one could not be fetched later; leave it out"
# Without it Ollama only loads the model.
_LOADING = {Surface.OLLAMA_CHAT: "messages", Surface.OLLAMA_GENERATE: "prompt"}


@dataclass(frozen=True, slots=True)
class Translated:
    """A request for another surface.

    Attributes:
        dropped: Fields of the client's request that have no place there, in its own spelling.
        changed: What was changed of the prompt, by the names that ``x-edge-changed`` has for it.
        reshape: Makes the client's answer of a JSON body that is no generation.
        echo: See ``canonical.Ask``.
    """

    body: bytes
    dropped: tuple[str, ...]
    changed: tuple[str, ...] = ()
    reshape: Reshape | None = None
    echo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to go upstream.

    Attributes:
        model: As the upstreams call it, as far as that is known; None if the client names none. ``body`` has it as the
            client wrote it.
        stream: The client wants a stream.
        streamed: The upstream is asked for a stream.
        body: What is sent upstream.
        strip_usage: Edge asked for the usage chunk, the client did not.
        choices: How many choices must finish, as far as the request says.
        size: Length of the client's body in bytes.
        crossed: The request written for upstreams that speak another surface, where that has been done beforehand.
        raw: Ollama: the prompt is to be continued as it stands.
        loads: Ollama: nothing is asked, only that the model be loaded, or let go.
        tokens: Estimate of what the prompt has.
        capped: Edge has set how many tokens the answer may have, as the client named nothing.
        changed: What was changed of the prompt, by the names that ``x-edge-changed`` has for it.
        named: Ollama: which fields the client names that an upstream's settings are for.
        thoughtless: The model cannot think, so it is not asked to.
        billed_system: The system prompt as it came, for Anthropic; only if ``body`` lacks its billing line.
        tools: The model may call some.
        format_field: Messages: the field that asks for an answer after a schema; empty if none does.
        sequences: How many answers the server works on for it: choices times prompts, or texts to embed or to rank.
        names_itself: The body has the client's own id for the request (``request_id``, vLLM's).
        stream_wish: The bytes at the end of ``body`` by which Edge asks for a stream that the client does not want.
    """

    surface: Surface
    model: str | None
    stream: bool
    streamed: bool
    body: bytes
    strip_usage: bool
    choices: int
    size: int
    crossed: tuple[tuple[Target, Translated], ...] = ()
    raw: bool = False
    loads: bool = False
    tokens: int = 0
    capped: bool = False
    changed: tuple[str, ...] = ()
    named: Named | None = None
    thoughtless: bool = False
    billed_system: Any = None
    tools: bool = False
    format_field: str = ""
    names_itself: bool = False
    stream_wish: bytes = b""
    sequences: int = 1


def prepare(
    surface: Surface,
    raw: bytes,
    most: Callable[[str | None], int | None] | None = None,
    name_of: Callable[[str], str] = str,
) -> Prepared:
    """Check and rewrite a request body.

    Args:
        surface: Whose it is.
        raw: As it came.
        most: How many tokens an answer of a model may have; None is no limit.
        name_of: What the upstreams call a model.

    Raises:
        BadRequest: not JSON, not an object, over a bound, or a field that Edge reads has the wrong type.
    """
    body = _one_spelling(parse_object(raw), _READ_OLLAMA if surface in OLLAMA else _READ)
    model = _field(body, "model", str, "a string")
    model = None if model is None else name_of(model)
    stream = _field(body, "stream", bool, "true or false")
    if stream is None:
        stream = surface in STREAMS_BY_DEFAULT
    billed = _take_billing_line(surface, body)
    changed = () if billed is None else (billing_line.CHANGE,)
    if surface not in GENERATING:
        if stream:
            raise BadRequest(f"stream: {surface} answers cannot be streamed; leave it out", param="stream")
        tokens = prompt_tokens(surface, body, len(raw))
        written, named = _written(surface, body)
        return Prepared(
            surface, model, False, False, written, False, 1, len(raw),
            tokens=tokens, changed=changed, named=named, billed_system=billed, sequences=_texts(body),
            names_itself=_names_itself(body),
        )  # fmt: skip
    _check_shape(surface, body)
    if surface in _LOADING and not body.get(_LOADING[surface]):
        written, named = _written(surface, body)
        return Prepared(surface, model, False, False, written, False, 1, len(raw), loads=True, named=named)
    limit = None if most is None else most(model)
    capped = limit is not None and max_tokens.cap(surface, body, limit)
    streamed = stream or not any(_asks(body, name) for name in _UNSTREAMABLE if name in body)
    strip_usage, wish = False, b""
    if streamed:
        strip_usage, wish = _ask_for_stream(surface, body, stream=stream)
    continues = surface is Surface.OLLAMA_GENERATE and bool(body.get("raw") or body.get("suffix"))
    size, choices = len(raw), _choices(surface, body)
    tokens = prompt_tokens(surface, body, size)
    written, named = _written(surface, body)
    return Prepared(
        surface, model, stream, streamed, written, strip_usage, choices, size,
        raw=continues, tokens=tokens, capped=capped, changed=changed, named=named, billed_system=billed,
        tools=_may_call(body), stream_wish=wish, sequences=choices, names_itself=_names_itself(body),
        format_field=_format_field(body) if surface is Surface.MESSAGES else "",
    )  # fmt: skip


def _names_itself(body: dict[str, Any]) -> bool:
    return isinstance(body.get("request_id"), str)


def _written(surface: Surface, body: dict[str, Any]) -> tuple[bytes, Named | None]:
    return ollama_defaults.write(body) if surface in OLLAMA else (dumps(body), None)


def as_sent(prepared: Prepared) -> bytes:
    """The body with the system prompt as it came, for Anthropic."""
    return dumps({**loads(prepared.body), "system": prepared.billed_system})


def _take_billing_line(surface: Surface, body: dict[str, Any]) -> Any:
    """Take the billing line out of the body; returns the system prompt as it came, None if there was no such line."""
    system = body.get("system")
    if surface not in (Surface.MESSAGES, Surface.COUNT_TOKENS) or system is None:
        return None
    kept = billing_line.without_billing_line(system)
    if kept == system:
        return None
    if kept:
        body["system"] = kept
    else:
        del body["system"]
    return system


def unstreamed(prepared: Prepared) -> Prepared:
    """The same request for a server that is not to stream it."""
    wish = prepared.stream_wish
    if wish and prepared.body.endswith(wish):  # the usual case: a body of megabytes is not parsed once more
        body = prepared.body[: -len(wish)] + b',"stream":false}'
        return replace(prepared, body=body, streamed=False, stream_wish=b"")
    asked = loads(prepared.body)
    asked["stream"] = False
    asked.pop("stream_options", None)
    return replace(prepared, body=dumps(asked), streamed=False, stream_wish=b"")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse one bounded JSON object.

    Raises:
        BadRequest: empty, malformed, not an object, nested too deep, or with too many elements.
        MemoryError: there is not enough for it now.
    """
    if not raw.strip():
        raise BadRequest("the request body is empty; send a JSON object")
    _bound(raw)
    try:
        body = loads(raw, finite=True)
    except orjson.JSONDecodeError as error:
        if out_of_memory(error):
            raise MemoryError from None
        raise BadRequest(f"the request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the request body must be a JSON object")
    return body


def _bound(raw: bytes) -> None:
    opened = raw.count(b"{") + raw.count(b"[")
    if opened <= MAX_DEPTH and opened + raw.count(b",") <= MAX_ELEMENTS:
        return
    # Only now is it worth separating structure from text: take the strings out and count exactly.
    elements = depth = 0
    for piece in _PIECE.finditer(raw):
        bare = _STRING.sub(b"", piece.group())
        elements += bare.count(b"{") + bare.count(b"[") + bare.count(b",")
        if elements > MAX_ELEMENTS:
            raise BadRequest(f"the request body has more than {MAX_ELEMENTS} elements")
        for match in _BRACKET.finditer(bare):
            depth += 1 if match.group() in b"[{" else -1
            if depth > MAX_DEPTH:
                raise BadRequest(f"the request body is nested more than {MAX_DEPTH} levels deep")
            if depth < 0:
                return  # no JSON: the parser says where


def _one_spelling(body: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key in names or key.casefold() not in names}


def _field(body: dict[str, Any], name: str, kind: type, wanted: str, path: str = "") -> Any:
    value = body.get(name)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise BadRequest(f"{path}{name}: must be {wanted}", param=path + name)
    return value


def _check_shape(surface: Surface, body: dict[str, Any]) -> None:
    """What every server needs and not every server checks: llama.cpp answers a missing ``messages`` with a 500.

    A response that is made in the background could only be fetched by its id, which has no route here.
    """
    if surface is Surface.RESPONSES and _field(body, "background", bool, "true or false"):
        raise BadRequest(f"background: {NOT_STORED}", param="background")
    messages = body.get("messages")
    if surface is Surface.OLLAMA_CHAT and messages is None:
        return  # it asks for the model to be loaded
    if surface in (Surface.CHAT, Surface.MESSAGES, Surface.OLLAMA_CHAT) and not isinstance(messages, list):
        raise BadRequest("messages: required, a list of messages", param="messages")


def _format_field(body: dict[str, Any]) -> str:
    """See ``Prepared.format_field``."""
    config = body.get("output_config")
    if isinstance(config, dict) and config.get("format"):
        return "output_config"
    return "output_format" if body.get("output_format") else ""


def _asks(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if name in _ASKED_BY_ANY_NUMBER:
        return value is not None
    return value > 1 if name == "best_of" and isinstance(value, int) else value not in (None, False)


def _may_call(body: dict[str, Any]) -> bool:
    """Whether there are tools to be called, in any surface's words."""
    if not (body.get("tools") or body.get("functions")):
        return False
    choice = body.get("tool_choice")
    return (choice.get("type") if isinstance(choice, dict) else choice) != "none"


def _ask_for_stream(surface: Surface, body: dict[str, Any], *, stream: bool) -> tuple[bool, bytes]:
    """Ask for a stream, and for its usage.

    Returns:
        Whether the usage must not reach the client; and, if the client wants no stream, the bytes that ask for one:
        they come last, so that they can be cut off again.
    """
    if not stream:
        body.pop("stream", None)
    body["stream"] = True
    strip_usage, wished = False, ["stream"]
    if surface in (Surface.CHAT, Surface.COMPLETIONS):
        strip_usage = _inject_usage(body, stream=stream)
        wished.append("stream_options")
    # Without the field Ollama streams; and a body that holds nothing else has no comma to begin with.
    if stream or surface in STREAMS_BY_DEFAULT or len(body) <= len(wished):
        return strip_usage, b""
    return strip_usage, b"," + dumps({name: body[name] for name in wished})[1:]


def _inject_usage(body: dict[str, Any], *, stream: bool) -> bool:
    """Ask for usage; True if the client streams and did not ask, so that its chunk must not reach it."""
    options = _one_spelling(_field(body, "stream_options", dict, "an object") or {}, _READ_OPTIONS)
    asked = _field(options, "include_usage", bool, "true or false", "stream_options.")
    if not stream:
        body.pop("stream_options", None)  # to come last
    body["stream_options"] = {**options, "include_usage": True}
    return stream and not asked


def _texts(body: dict[str, Any]) -> int:
    """How many texts are to be embedded, ranked or scored: servers work on each by itself."""
    given = next((body[name] for name in _TEXTS if isinstance(body.get(name), list)), None)
    return len(given) if given and isinstance(given[0], str | list | dict) else 1


def _choices(surface: Surface, body: dict[str, Any]) -> int:
    if surface not in (Surface.CHAT, Surface.COMPLETIONS):
        return 1
    count = max(1, _field(body, "n", int, "a whole number") or 1)
    prompt = body.get("prompt")
    if surface is Surface.COMPLETIONS and isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        count *= len(prompt)
    return count
