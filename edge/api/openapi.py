"""The description of Edge's own routes, as an OpenAPI 3.1 document.

In: ``GET /openapi.json``. Out: the document, made at the first request: most processes are never asked, and until then
it is not even imported. Must not: name upstreams or models; those differ from hour to hour and have routes.
"""

import functools
from collections.abc import Callable

import orjson
from aiohttp import web

PATH = "/openapi.json"


def routes(have_keys: Callable[[], bool], *, have_metrics: bool) -> list[web.RouteDef]:
    """The route; like every other one but ``/health`` and ``/ready`` it needs a key if there are any.

    Args:
        have_keys: Whether there are, when the document is asked for.
        have_metrics: ``/metrics`` is among the routes.
    """

    @functools.cache
    def made(*, with_keys: bool) -> bytes:
        from edge.api.openapi_document import document  # noqa: PLC0415 - see above

        return orjson.dumps(document(have_keys=with_keys, have_metrics=have_metrics))

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=made(with_keys=have_keys()), content_type="application/json")

    return [web.get(PATH, openapi)]
