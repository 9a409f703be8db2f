"""Recognise what answers on a URL, and know what that kind of server is good for.

In: the pool of the URL. Out: ``Found``: the kind, whether it can be used now and if not why, its models.
Must not: trust a port number (a Jupyter lives on 8000, a Tomcat on 8080), follow redirects, read without bound,
or raise for anything that the other side does.

``GET /v1/models`` mostly says enough. Only when that answer is new are further routes asked, since a foreign server's
log is not ours to fill.
"""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from edge.bounds import MODEL_LIST_BYTES
from edge.errors import LoopDetected
from edge.policy.routing import printable
from edge.protocol.json_text import dumps, loads
from edge.protocol.surface import OLLAMA, RELAYED, UPSTREAM_PATHS, Surface
from edge.upstream.discovery.edges import Ways, read
from edge.upstream.discovery.working import listed_slots, total_slots
from edge.upstream.fetch import Answer, Unreachable, get
from edge.upstream.pool import Pool
from edge.upstream.relay.connection import Ended, Malformed

PROBE_S = 2.0
Card = dict[str, Any]


class Kind(StrEnum):
    """What answers."""

    LLAMA_CPP = "llama.cpp"
    VLLM = "vLLM"
    SGLANG = "SGLang"
    LM_STUDIO = "LM Studio"
    OLLAMA = "Ollama"
    EDGE = "Edge"
    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    SIMULATOR = "simulator"
    GENERIC = "OpenAI-compatible"
    OTHER = "other"  # something that is no model server, or does not show it
    SILENT = "silent"  # connected, or tried to, and no answer in time
    NOTHING = "nothing"  # cannot be connected to


# A long line is nobody's bug, but kills clients that read by lines with aiohttp (open-webui#10302, #17626, #19800).
_HARMLESS = frozenset({"split-long"})


@dataclass(frozen=True, slots=True)
class Traits:
    """What a kind of server is good for, unless its settings say otherwise.

    Attributes:
        repairs: Faults of its streams that are mended.
        answers_any: With a single model it answers whatever name it is asked for.
        buffers_calls: It parses a tool call when that is whole, and may send nothing at all while the model writes it.
        slots: How many requests it works on at once if it does not say; None = any number.
        ignored_formats: Fields of a Messages request that ask for a schema, and that it takes without following it.
        stops_unstreamed: It stops the model by itself when the reader of an answer that is not streamed leaves, so
            that Edge need not ask for a stream to have it stopped.
    """

    surfaces: frozenset[Surface]
    repairs: frozenset[str] = _HARMLESS
    answers_any: bool = False
    buffers_calls: bool = False
    slots: int | None = None
    ignored_formats: frozenset[str] = frozenset()
    stops_unstreamed: bool = False


_BASIC = frozenset({Surface.CHAT, Surface.COMPLETIONS, Surface.EMBEDDINGS})
_ANTHROPIC = frozenset({Surface.MESSAGES, Surface.COUNT_TOKENS})

TRAITS: Mapping[Kind, Traits] = {
    # llama.cpp has /v1/responses too, but its stream lacks what the SDKs' stream helpers need.
    # A list of prompts is answered with a null event first; reasoning comes as reasoning_content alone. Its created
    # moves on each second, which no client is known to mind, so stable-id is not worth decoding every token. A first
    # token that is a part of a character is held back, and with it the role chunk or the message_start.
    Kind.LLAMA_CPP: Traits(
        _BASIC | _ANTHROPIC,
        _HARMLESS | {"drop-null-events", "both-reasoning", "role-first", "message-start"},
        answers_any=True,
        ignored_formats=frozenset({"output_config", "output_format"}),
    ),
    # Its reasoning_content has become reasoning, and many clients read only the former: vllm#33402, litellm#20246. Its
    # Messages know output_config alone. Several of its tool parsers wait for the whole call. Its streams
    # lack much that its whole answers have; and those it stops by itself (0.32, measured on all four surfaces).
    Kind.VLLM: Traits(
        _BASIC | _ANTHROPIC | {Surface.RESPONSES},
        _HARMLESS | {"both-reasoning"},
        buffers_calls=True,
        ignored_formats=frozenset({"output_format"}),
        stops_unstreamed=True,
    ),
    # finish_reason "" in 0.4 (sglang#3912), tool calls without index (#5661), no role until a reasoning model answers
    # (#18335), another id for each of several choices and created moving on (#39864), reasoning_content alone.
    Kind.SGLANG: Traits(_BASIC, _HARMLESS | {"role-first", "stable-id", "finish-null", "tool-index", "both-reasoning"}),
    # reasoning or reasoning_content, by model and version: lmstudio-bug-tracker#378, #894.
    # Its MLX engine, like mlx-lm's own server below, parses calls when they are whole.
    Kind.LM_STUDIO: Traits(_BASIC | {Surface.RESPONSES}, _HARMLESS | {"both-reasoning"}, buffers_calls=True),
    # Its /v1 turns errors in mid-stream into clean ends, so it is only spoken to in its own API.
    # OLLAMA_NUM_PARALLEL, for each model, is 1 unless it is set, and cannot be asked for.
    # It is silent for minutes while a model writes a file into a call: ollama#16279, #14858, copilot-cli#4286.
    Kind.OLLAMA: Traits(OLLAMA, buffers_calls=True, slots=1),
    Kind.EDGE: Traits(frozenset(UPSTREAM_PATHS) - RELAYED),
    Kind.OPENAI: Traits(_BASIC | {Surface.RESPONSES}),
    Kind.ANTHROPIC: Traits(_ANTHROPIC),
    Kind.SIMULATOR: Traits(_BASIC),
    # Whatever it is. These break the OpenAI SDKs, and are only done to a stream that has the fault: finish_reason ""
    # (openai-dotnet#389), tool calls without index (mistral.rs#1507, openai-python#2806), an id for each chunk (Foundry
    # Local: foundry-local#144, #221).
    Kind.GENERIC: Traits(_BASIC, _HARMLESS | {"finish-null", "tool-index", "stable-id"}, buffers_calls=True),
}

# Those are what they are configured to be, and are not to be looked at as often as a server beside Edge.
CLOUDS = frozenset({Kind.OPENAI, Kind.ANTHROPIC})

# What may be used, or at least named, when it is found without being configured. Never an Edge: that way lies a loop.
MODEL_SERVERS = frozenset(TRAITS) - CLOUDS - {Kind.EDGE, Kind.SIMULATOR}

# The name that a server writes into ``owned_by`` of its own models.
_OWNERS = {
    "llamacpp": Kind.LLAMA_CPP,
    "vllm": Kind.VLLM,
    "sglang": Kind.SGLANG,
    "organization_owner": Kind.LM_STUDIO,
}
_NO_ANSWER = (Malformed, Ended, OSError)
_LOCKED = (401, 403)
TOO_LONG_A_LIST = f"has a model list of over {MODEL_LIST_BYTES // 2**20} MiB"
LISTLESS = (404, 405, 501)
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mark:
    """By what the answer to ``/v1/models`` is known again; deliberately without the models."""

    status: int
    server: str
    listed: bool
    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class Found:
    """What one look saw.

    Attributes:
        up: It can be used now.
        why: Why it cannot, as a phrase that follows its name.
        cards: The entries of its model list, as they came; None if there was no list.
        listless: It answers, but has no model list, as far as its status shows.
        seems: For ``OTHER``, what it calls itself, if anything.
        slots: How many requests it works on at once, if it says.
        ways: See ``Member``.
        version: What an Ollama calls itself.
    """

    kind: Kind
    up: bool = False
    why: str | None = None
    cards: tuple[Card, ...] | None = None
    listless: bool = False
    seems: str = ""
    mark: Mark | None = None
    slots: int | None = None
    ways: Ways | None = None
    version: str = ""

    @property
    def wants_key(self) -> bool:
        """It answers that it wants a key, or another one."""
        return self.mark is not None and self.mark.status in _LOCKED


async def identify(pool: Pool, before: Found | None = None, settled: Kind | None = None) -> Found:
    """Look at what answers; at most three requests of ``PROBE_S`` each, one if it answers like last time.

    Args:
        pool: Of the URL that is looked at.
        before: What the last look saw.
        settled: What it is, whatever it seems to be; but for an Edge, which must be known as one.
    """
    answer = await ask(pool, "/v1/models", PROBE_S)
    if isinstance(answer, Found):
        return answer
    if answer.too_large:
        return Found(Kind.OTHER, why=TOO_LONG_A_LIST)
    status = answer.head.status
    cards = cards_in(answer.body) if status == 200 else None
    if cards is None and settled is Kind.OLLAMA:  # a proxy may pass /api alone
        cards = _tagged(await _peek(pool, "/api/tags"))
    mark = Mark(status, printable(answer.head.headers.get("server", "")), cards is not None, _owners(cards))
    reported = None if cards is None or pool.hop is None else read(answer.body, cards, pool.hop.id)
    if reported is not None:
        return _edge(*reported, mark)
    if before is not None and before.mark == mark:
        kind, seems = before.kind, before.seems
    elif settled is not None and _declared(mark) is not Kind.EDGE:
        kind, seems = settled, ""
    else:
        kind, seems = await _recognise(pool, mark)
    if kind is Kind.OLLAMA and cards is not None:
        detailed = _detailed(cards, await _peek(pool, "/api/tags"))
        return Found(kind, up=True, cards=detailed, mark=mark, version=await _version(pool, mark, before))
    if cards is not None:
        return Found(kind, up=True, cards=cards, mark=mark, slots=await _slots(pool, kind, mark, before))
    return Found(kind, why=why_not(kind, mark), listless=mark.status in LISTLESS, seems=seems, mark=mark)


def _edge(cards: tuple[Card, ...], ways: Ways, mark: Mark) -> Found:
    if cards or ways.any is not None:
        return Found(Kind.EDGE, up=True, cards=cards, mark=mark, ways=ways)
    return Found(Kind.EDGE, why="has no model server but by way of this Edge", cards=(), mark=mark, ways=ways)


async def ask(pool: Pool, path: str, within_s: float) -> Answer | Found:
    """What answers, or else why nothing does."""
    try:
        return await _get(pool, path, within_s)
    except TimeoutError:
        return Found(Kind.SILENT, why=f"did not answer within {within_s:g} s")
    except Unreachable as error:
        return Found(Kind.NOTHING, why=_unreachable(error.__cause__))
    except _NO_ANSWER:
        return Found(Kind.OTHER, why="accepts connections, but does not answer in HTTP")


async def _get(pool: Pool, path: str, within_s: float = PROBE_S) -> Answer:
    async with asyncio.timeout(within_s):
        return await get(pool, path, MODEL_LIST_BYTES)


async def _peek(pool: Pool, path: str) -> bytes:
    """The body of a further route, or nothing if that route does not answer well."""
    try:
        answer = await _get(pool, path)
    except (Unreachable, *_NO_ANSWER):  # a TimeoutError is an OSError
        return b""
    return answer.body if answer.head.status == 200 else b""


async def _slots(pool: Pool, kind: Kind, mark: Mark, before: Found | None) -> int | None:
    """How many requests it works on at once. Asked after each start of the server, which a failed look reveals."""
    if kind is not Kind.LLAMA_CPP:
        return None
    if before is not None and before.mark == mark and before.up and before.slots is not None:
        return before.slots
    reported = total_slots(await _peek(pool, "/props"))
    return listed_slots(await _peek(pool, "/slots")) if reported is None else reported


async def _version(pool: Pool, mark: Mark, before: Found | None) -> str:
    """An Ollama's version. Asked after each start of it, which a failed look reveals."""
    if before is not None and before.mark == mark and before.up and before.version:
        return before.version
    try:
        reported = orjson.loads(await _peek(pool, "/api/version") or b"{}")
    except orjson.JSONDecodeError:
        return ""
    version = reported.get("version") if isinstance(reported, dict) else None
    return printable(version) if isinstance(version, str) else ""


async def _recognise(pool: Pool, mark: Mark) -> tuple[Kind, str]:
    kind = _declared(mark)
    if kind is not None:
        return kind, ""
    home = await _peek(pool, "/")
    if b"Ollama is running" in home[:100]:
        return Kind.OLLAMA, ""
    if not mark.listed:
        title = _TITLE.search(home)
        return Kind.OTHER, printable(title[1].decode(errors="replace").strip()) if title else mark.server
    is_lm_studio = cards_in(await _peek(pool, "/api/v0/models")) is not None  # nobody else has that route
    return (Kind.LM_STUDIO if is_lm_studio else Kind.GENERIC), ""


def _declared(mark: Mark) -> Kind | None:
    """What it says it is, in passing."""
    if mark.server.lower().partition("/")[0] == "edge":
        return Kind.EDGE
    if mark.server == "llama.cpp":
        return Kind.LLAMA_CPP
    return _OWNERS.get(next(iter(mark.owners))) if len(mark.owners) == 1 else None


def cards_in(body: bytes) -> tuple[Card, ...] | None:
    """The entries of a model list, or None if this is not one: ``{"object": "list", "data": [{"id": …}, …]}``.

    Together's is the array alone.
    """
    try:
        answer = loads(body)
        dumps(answer)  # nested deeper than it can be written again: nothing to pass on
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if isinstance(answer, list):
        return tuple(answer) if all(map(_is_card, answer)) else None
    # Some leave "object" out; Ollama's data is null when it has no models.
    if not isinstance(answer, dict) or answer.get("object", "list") != "list" or "data" not in answer:
        return None
    cards = answer["data"] if answer["data"] is not None else []
    if not isinstance(cards, list) or not all(_is_card(card) for card in cards):
        return None
    return tuple(cards)


def _detailed(cards: tuple[Card, ...], tags: bytes) -> tuple[Card, ...]:
    """With what Ollama's own list says of each model: family, size of the parameters, quantisation, size."""
    try:
        listed = orjson.loads(tags or b"{}").get("models") or []
    except (orjson.JSONDecodeError, AttributeError):
        return cards
    known = {model.get("name"): model for model in listed if isinstance(model, dict)}
    return tuple({**known.get(card["id"], {}), **card} for card in cards)


def _tagged(tags: bytes) -> tuple[Card, ...] | None:
    """Ollama's own list of models as entries of a model list; None if it is none."""
    try:
        listed = orjson.loads(tags).get("models")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    if listed is None:
        listed = []
    if not isinstance(listed, list):
        return None
    names = [model.get("name") for model in listed if isinstance(model, dict)]
    return tuple({"id": name, "object": "model", "owned_by": "library"} for name in names if isinstance(name, str))


def _is_card(card: object) -> bool:
    return isinstance(card, dict) and isinstance(card.get("id"), str) and card["id"] != ""


def _owners(cards: tuple[Card, ...] | None) -> frozenset[str]:
    return frozenset(owner for card in cards or () if isinstance(owner := card.get("owned_by"), str))


def why_not(kind: Kind, mark: Mark) -> str:
    """Why it cannot be used, as a phrase that follows its name."""
    if mark.status == LoopDetected.status:
        return "leads back to this Edge"
    if kind is Kind.LLAMA_CPP and mark.status == 503:
        return "is loading its model"
    if mark.status in _LOCKED:
        return f"wants an API key that it was not given (it answers {mark.status} to /v1/models)"
    if mark.status in (301, 302, 303, 307, 308):
        return f"redirects /v1/models ({mark.status}); redirects are not followed, so name the place itself"
    if mark.status == 200:
        return "answers /v1/models with something that is not a list of models"
    return f"answers {mark.status} to /v1/models"


def _unreachable(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "has a TLS certificate that is not trusted; see ca_file"
    if isinstance(error, socket.gaierror):
        return "has a host name that cannot be resolved"
    if isinstance(error, ConnectionRefusedError) or getattr(error, "errno", None) == errno.ECONNREFUSED:
        return "refuses connections: nothing listens there"
    return f"cannot be reached: {getattr(error, 'strerror', None) or error}"
