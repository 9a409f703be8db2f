"""What a request that Edge makes on behalf of another one says of the Edges that were passed.

In: the request that came. Out: headers. Must not: be left out of any request to an upstream.
"""

from collections.abc import Mapping

from aiohttp import web

from edge.api.context import CONTEXT
from edge.upstream.fleet import Fleet


def hops_of(request: web.BaseRequest, fleet: Fleet) -> Mapping[str, str]:
    """The headers to add to whatever goes to an upstream because of this request; see ``policy.hops``."""
    return fleet.hop.onward(request[CONTEXT].passed)
