"""Answers of Edge's own: JSON in one piece.

In: a JSON value. Out: a response. Must not: know whom it is for.
"""

from collections.abc import Mapping

import orjson
from aiohttp import web


def json_answer(fields: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """``fields`` as JSON."""
    return web.Response(body=orjson.dumps(fields), status=status, headers=headers, content_type="application/json")
