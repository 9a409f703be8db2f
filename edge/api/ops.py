"""The operator's routes, and the list of models.

In: GET requests. Out: what the fleet, the registry and the metrics say. Must not: probe anything; it tells what is
known already.
"""

from collections.abc import Callable

import orjson
from aiohttp import web

from edge.errors import NotFound
from edge.policy.routing import printable
from edge.stream.registry import Registry
from edge.upstream.fleet import Fleet


def routes(fleet: Fleet, registry: Registry, metrics: Callable[[], tuple[bytes, str]]) -> list[web.RouteDef]:
    """``/health /ready /metrics /v1/models /v1/models/{id}``."""

    async def health(_request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def ready(_request: web.Request) -> web.Response:
        is_ready, facts = fleet.ready()
        if registry.draining:
            is_ready, facts = False, {**facts, "ready": False, "reason": "shutting down"}
        return _json(facts, 200 if is_ready else 503)

    async def exposition(_request: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def models(_request: web.Request) -> web.Response:
        return _json({"object": "list", "data": fleet.models()})

    async def model(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        card = fleet.model(name)
        if card is None:
            raise NotFound(f'the model "{printable(name)}" does not exist', code="model_not_found", param="model")
        return _json(card)

    return [
        web.get("/health", health),
        web.get("/ready", ready),
        web.get("/metrics", exposition),
        web.get("/v1/models", models),
        web.get("/v1/models/{id:.+}", model),
    ]


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
