"""The operator's routes, and the list of models.

In: GET requests. Out: what the fleet, the registry and the metrics say. Must not: probe anything; it says what is
known already.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from edge.api.answer import json_answer
from edge.api.context import CONTEXT, caller
from edge.errors import NotFound
from edge.exchange.ports import ExchangeRegistry
from edge.policy.auth.permission import check_admin, may_use
from edge.policy.routing import printable
from edge.protocol.surface import Surface
from edge.upstream.fleet import Fleet


def probes(fleet: Fleet, registry: ExchangeRegistry, closed: Callable[[], str | None]) -> list[web.RouteDef]:
    """``/health /ready``. ``closed``: why no caller at all can be let in now; None if one can be.

    ``/ready?self`` is about this Edge alone: it ignores the upstreams.
    """

    async def health(_request: web.Request) -> web.Response:
        return json_answer({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        is_ready, facts = fleet.ready()
        if "self" in request.query:
            is_ready, facts = True, {**facts, "ready": True, "reason": None}
        if (why := closed()) is not None:
            both = why if facts["reason"] is None else f"{why}; {facts['reason']}"
            is_ready, facts = False, {**facts, "ready": False, "reason": both}
        if registry.draining:
            is_ready, facts = False, {**facts, "ready": False, "reason": "shutting down"}
        return json_answer(facts, 200 if is_ready else 503)

    return [web.get("/health", health), web.get("/ready", ready)]


def exposition(render: Callable[[], tuple[bytes, str]]) -> list[web.RouteDef]:
    """``/metrics``."""

    async def metrics(request: web.Request) -> web.Response:
        check_admin(caller(request))
        body, content_type = render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    return [web.get("/metrics", metrics)]


def models(fleet: Fleet) -> list[web.RouteDef]:
    """``/v1/models /v1/models/{id}``."""

    async def cards(request: web.Request) -> web.Response:
        principal, passed = caller(request), request[CONTEXT].passed
        # Another Edge gets more; see ``upstream.discovery.edges``.
        found: dict[str, Any] = fleet.models_for(passed) if passed else {"object": "list", "data": fleet.models()}
        return json_answer({**found, "data": [card for card in found["data"] if may_use(principal, card["id"])]})

    async def card(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        listed = fleet.names(Surface.CHAT)(name)
        known = fleet.model(listed)
        if known is None or not may_use(caller(request), listed):
            raise NotFound(f'the model "{printable(name)}" does not exist', code="model_not_found", param="model")
        return json_answer({**known, "id": name})  # as an Ollama does, which echoes the spelling

    return [web.get("/v1/models", cards), web.get("/v1/models/{id:.+}", card)]
