"""A limit that is reached is told in the shape of each surface, with the code that its clients know."""

from typing import Any

import orjson
import pytest

from edge.errors import EdgeError
from edge.policy.limits.rules import Bound, Demand, Kind, Standing, Taken, refusal
from edge.protocol.dialects import DIALECTS
from edge.protocol.surface import OLLAMA, Surface


def refused(kind: Kind) -> EdgeError:
    demand = Demand("st_1", "ann", "all", 10, (Bound(kind, "all/ann", 60),))
    return refusal(Taken(demand, 0.0, False, (Standing(60, 7.5, 50.0),)))


def told(surface: Surface, error: EdgeError) -> Any:
    return orjson.loads(DIALECTS[surface].format(None, "req_1").error_body(error))


@pytest.mark.parametrize("surface", sorted(DIALECTS))
@pytest.mark.parametrize(
    ("kind", "type_", "code"),
    [
        (Kind.REQUESTS, "rate_limit_error", "rate_limit_exceeded"),
        (Kind.TOKENS, "rate_limit_error", "rate_limit_exceeded"),
        (Kind.CONCURRENT, "rate_limit_error", "rate_limit_exceeded"),
        (Kind.DAY, "insufficient_quota", "insufficient_quota"),
        (Kind.MONTH, "insufficient_quota", "insufficient_quota"),
    ],
)
def test_each_surface_tells_it_in_its_own_shape(surface: Surface, kind: Kind, type_: str, code: str) -> None:
    error = refused(kind)
    body = told(surface, error)
    if surface in OLLAMA:
        assert body == {"error": error.message}
    elif surface in (Surface.MESSAGES, Surface.COUNT_TOKENS):
        assert body["error"] == {"type": "rate_limit_error", "message": error.message}
    else:
        assert body["error"] == {"message": error.message, "type": type_, "param": None, "code": code}
