"""What Ollama's clients ask beside answers: is it there, which version, which models, and what of each.

In: requests. Out: what the fleet knows, in Ollama's words; of an Ollama's models its own answers where it has more.
Must not: generate anything, or change a model (``management`` does).
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from edge.api.answer import json_answer
from edge.api.body import Bodies
from edge.api.context import caller, hops_of
from edge.bounds import MODEL_FACTS_BYTES
from edge.errors import NotFound, UpstreamCut, UpstreamTimeout, UpstreamUnreachable
from edge.policy.auth.permission import may_use
from edge.policy.routing import printable, route
from edge.protocol.fields import Fields
from edge.protocol.json_text import dumps, loads
from edge.protocol.ollama.format import now_text
from edge.protocol.ollama.parse import parse_chat, parse_generate
from edge.protocol.request import Prepared, parse_object
from edge.protocol.surface import OLLAMA, Surface
from edge.upstream.fetch import Answer, Unreachable, get, post
from edge.upstream.fleet import Fleet, Member
from edge.upstream.pool import Pool
from edge.upstream.relay.connection import Ended, Malformed
from edge.upstream.relay.relay import Relay, reason
from edge.upstream.tags import running, shown, tag

# The version whose API is spoken here; clients refuse old ones, or leave features out for them.
VERSION = "0.13.0"
_ASK_S = 2.0
_NO_ANSWER = (Unreachable, Malformed, Ended, OSError)  # a TimeoutError is an OSError
_UNLOADS = (0, "0", "0s", "0m", "0h")


def routes(fleet: Fleet, bodies: Bodies) -> list[web.RouteDef]:
    """``/ /api/version /api/tags /api/ps /api/show``, and what Ollama's command line asks of its cloud."""

    async def tags(request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer({"models": [tag(card) for card in fleet.models() if may_use(principal, card["id"])]})

    async def loaded_now(request: web.Request) -> web.Response:
        principal = caller(request)
        members = [member for member in fleet.members if member.up]
        found: dict[str, object] = {}
        hops = hops_of(request, fleet)
        for models in await asyncio.gather(*(_running_at(member, hops) for member in members)):
            for model in models:
                name = str(model.get("name"))
                if may_use(principal, name):
                    found.setdefault(name, model)
        return json_answer({"models": list(found.values())})

    async def show(request: web.Request) -> web.Response:
        share = bodies.share(request)
        try:
            asked = parse_object(await bodies.read_raw(request, share))
        finally:
            share.give_back()
        fields = Fields(asked)
        name = fleet.names(Surface.OLLAMA_CHAT)(fields.text("model") or fields.needed_text("name"))
        card = fleet.model(name)
        if card is None or not may_use(caller(request), name):
            raise NotFound(f"model '{printable(name)}' not found", code="model_not_found", param="model")
        return await _shown_by(fleet, name, asked, hops_of(request, fleet)) or json_answer(shown(card))

    return [
        web.get("/", _home),
        web.get("/api/version", _version),
        web.get("/api/status", _status),
        web.post("/api/me", _me),
        web.get("/api/tags", tags),
        web.get("/api/ps", loaded_now),
        web.post("/api/show", show),
    ]


async def _home(_request: web.Request) -> web.Response:
    """What an Ollama is known by."""
    return web.Response(text="Ollama is running")


async def _version(_request: web.Request) -> web.Response:
    """Whose API is spoken."""
    return json_answer({"version": VERSION})


async def _status(_request: web.Request) -> web.Response:
    """Whether the cloud of Ollama can be used through here: Edge asks nobody there."""
    return json_answer({"cloud": {"disabled": True, "source": "none"}})


async def _me(_request: web.Request) -> web.Response:
    """Who is signed in to that cloud."""
    return json_answer({"error": "unauthorized: Edge has no account at ollama.com"}, 401)


def loaded(prepared: Prepared, fleet: Fleet) -> web.Response | None:
    """The answer to a request that only loads the model or lets it go; None if it asks more, or asks an Ollama.

    Raises:
        EdgeError: there is nobody who has it, or a field is malformed.
    """
    if not prepared.loads:
        return None
    first, *_ = route(prepared.surface, prepared.model, fleet.members_for(prepared.model))
    if first.target(prepared.surface) is None:
        return None
    chat = prepared.surface is Surface.OLLAMA_CHAT
    asked = (parse_chat if chat else parse_generate)(loads(prepared.body))
    return json_answer(
        {
            "model": asked.model or "",
            "created_at": now_text(),
            **({"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}),
            "done": True,
            "done_reason": "unload" if asked.keep_alive in _UNLOADS else "load",
        }
    )


def _pool(member: Member) -> Pool | None:
    """The way to a member that speaks Ollama's API itself."""
    upstream = member.upstream
    return upstream.pool if isinstance(upstream, Relay) and member.native & OLLAMA else None


async def _running_at(member: Member, hops: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a member has in memory: an Ollama says so, any other has all its models there."""
    pool = _pool(member)
    if pool is None:
        return [running(card) for card in member.model_cards]
    try:
        async with asyncio.timeout(_ASK_S):
            answer = await get(pool, "/api/ps", MODEL_FACTS_BYTES, hops)
    except _NO_ANSWER:
        return []
    models = _decoded(answer).get("models")
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []


async def _shown_by(fleet: Fleet, name: str, asked: dict[str, Any], hops: Mapping[str, str]) -> web.Response | None:
    """What the Ollama that has the model says of it; None if no Ollama has it, or it says nothing of it.

    Raises:
        EdgeError: it does not answer.
    """
    member = next((member for member in fleet.members if member.up and name in member.models), None)
    pool = None if member is None else _pool(member)
    if member is None or pool is None:
        return None
    try:
        async with asyncio.timeout(_ASK_S):
            answer = await post(pool, "/api/show", dumps({**asked, "model": name}), MODEL_FACTS_BYTES, hops)
    except TimeoutError:
        raise UpstreamTimeout(f"upstream {member.name} did not answer within {_ASK_S:g} s") from None
    except Unreachable as error:
        raise UpstreamUnreachable(f"upstream {member.name} cannot be reached: {reason(error.__cause__)}") from None
    except _NO_ANSWER as error:
        raise UpstreamCut(f"upstream {member.name} gave no answer: {reason(error)}") from None
    fields = _decoded(answer)
    return json_answer(fields) if fields else None


def _decoded(answer: Answer) -> dict[str, Any]:
    """Its JSON object; empty if it has none to show."""
    if answer.head.status != 200:
        return {}
    try:
        fields = loads(answer.body)
        dumps(fields)  # nested deeper than it can be written again: nothing to pass on
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return {}
    return fields if isinstance(fields, dict) else {}
