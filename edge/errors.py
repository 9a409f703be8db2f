"""Every way an exchange can fail, once: whose side, which status, which code, worth a retry or not.

In: the place that noticed the failure (adapters translate foreign exceptions here, once).
Out: one ``EdgeError``, which a dialect renders in its surface's own shape, before or after the commit.
Must not: know any surface's JSON shape, log, or carry a secret in ``message``.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Side(StrEnum):
    """Who failed. Decided by the await that raised, never by the exception's type."""

    CLIENT = "client"
    EDGE = "edge"
    UPSTREAM = "upstream"


class TooLong(NamedTuple):
    """By how much a prompt does not fit; None where nobody says so.

    Attributes:
        tokens: How many it has.
        maximum: How many there may be.
    """

    tokens: int | None
    maximum: int | None


class EdgeError(Exception):
    """A failure that a client sees.

    Args:
        message: One sentence for the person who reads it; names the field and the fix where there is one.
        param: The request field at fault, in the client's own spelling.
        headers: Extra response headers, used only when the status has not gone out yet.
    """

    side: Side = Side.EDGE
    status: int = 500
    type: str = "api_error"
    code: str | None = None
    retryable: bool = False
    too_long: TooLong | None = None  # the prompt is; agents shorten theirs when an error says so

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.headers = dict(headers or {})


class BadRequest(EdgeError):
    """The request itself is wrong; sending it again cannot help."""

    side, status, type, code = Side.CLIENT, 400, "invalid_request_error", "invalid_request"


class MalformedRequest(EdgeError):
    """What came is not HTTP."""

    side, status, type, code = Side.CLIENT, 400, "invalid_request_error", "malformed_request"


class HeadersTooLarge(EdgeError):
    """A line of the request's head, or the head, is over ``server.max_header_bytes``."""

    side, status, type, code = Side.CLIENT, 431, "invalid_request_error", "headers_too_large"


class ExpectationFailed(EdgeError):
    """The request has an ``Expect`` that Edge does not know."""

    side, status, type, code = Side.CLIENT, 417, "invalid_request_error", "expectation_failed"


class Unauthorized(EdgeError):
    """No key, or not one of ours."""

    side, status, type, code = Side.CLIENT, 401, "authentication_error", "invalid_api_key"


class TooManyAttempts(EdgeError):
    """So many wrong credentials have come from this address that the next one is not looked at yet."""

    side, status, type, code = Side.CLIENT, 429, "rate_limit_error", "too_many_attempts"


class CannotTell(EdgeError):
    """Who may call is kept elsewhere, and that cannot be asked now."""

    status, type, code, retryable = 503, "server_error", "auth_unavailable", True


class Forbidden(EdgeError):
    """Known, but not allowed: a Host or Origin that is not on the list, a model or a route that is another's."""

    side, status, type, code = Side.CLIENT, 403, "permission_error", "forbidden"


class NotFound(EdgeError):
    """No such route, or no such model."""

    side, status, type, code = Side.CLIENT, 404, "not_found_error", "not_found"


class MethodNotAllowed(EdgeError):
    """The route exists, but not for this method."""

    side, status, type, code = Side.CLIENT, 405, "invalid_request_error", "method_not_allowed"


class UpgradeRequired(EdgeError):
    """A WebSocket is asked for, and Edge has none."""

    side, status, type, code = Side.CLIENT, 426, "invalid_request_error", "websocket_not_supported"


class Conflict(EdgeError):
    """Something else is being done with it at this moment."""

    side, status, type, code = Side.CLIENT, 409, "invalid_request_error", "conflict"


class Gone(EdgeError):
    """It was there, and cannot be had any more."""

    side, status, type, code = Side.CLIENT, 410, "invalid_request_error", "gone"


class Stopped(EdgeError):
    """Somebody wanted the stream to be stopped."""

    side, status, type, code = Side.CLIENT, 409, "invalid_request_error", "stopped"


class RequestTimeout(EdgeError):
    """The request body did not arrive in time."""

    side, status, type, code = Side.CLIENT, 408, "invalid_request_error", "request_timeout"


class PromptTooLong(EdgeError):
    """The prompt has more tokens than the model's context.

    Args:
        tokens: How many it has.
        maximum: How many there may be.
    """

    side, status, type, code = Side.CLIENT, 400, "invalid_request_error", "context_length_exceeded"

    def __init__(
        self, message: str, *, tokens: int | None = None, maximum: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, param=param)
        self.too_long = None if tokens is None else TooLong(tokens, maximum)


class BodyTooLarge(EdgeError):
    """The request body is over ``server.max_body_bytes``."""

    side, status, type, code = Side.CLIENT, 413, "invalid_request_error", "request_too_large"


class UnsupportedMedia(EdgeError):
    """Not JSON, or in an encoding Edge does not take."""

    side, status, type, code = Side.CLIENT, 415, "invalid_request_error", "unsupported_media_type"


PLAIN_ONLY = {"Accept-Encoding": "identity"}  # a 415 has this if the encoding is at fault, and only then (RFC 9110)


class RateLimited(EdgeError):
    """A limit is reached; it passes, or less is to be asked."""

    side, status, type, code, retryable = Side.CLIENT, 429, "rate_limit_error", "rate_limit_exceeded", True


class OverBudget(EdgeError):
    """What there is for a day or a month has been spent; a retry cannot help before the next one."""

    side, status, type, code = Side.CLIENT, 429, "insufficient_quota", "insufficient_quota"


class Busy(EdgeError):
    """Edge is at one of its own bounds (bodies in flight); try again shortly."""

    status, type, code, retryable = 503, "server_error", "server_is_overloaded", True


class StoreUnavailable(EdgeError):
    """What is kept of streams and sessions cannot be read now; those that run go on."""

    status, type, code, retryable = 503, "server_error", "store_unavailable", True


class ShuttingDown(EdgeError):
    """Edge is draining: no new exchanges, and at the deadline no old ones either."""

    status, type, code, retryable = 503, "server_error", "shutting_down", True


class LoopDetected(EdgeError):
    """The request has been here before: upstreams point at each other."""

    status, type, code = 508, "server_error", "loop_detected"


class InternalError(EdgeError):
    """A bug of ours, answered like every other failure."""

    status, type, code = 500, "server_error", "internal_error"


class NoUpstream(EdgeError):
    """No upstream that could serve this is up, or speaks the surface."""

    side, status, type, code, retryable = Side.UPSTREAM, 503, "server_error", "no_upstream", True


class Unsupported(EdgeError):
    """No configured upstream speaks this surface; a retry cannot help."""

    side, status, type, code = Side.UPSTREAM, 501, "invalid_request_error", "surface_not_supported"


class UpstreamUnreachable(EdgeError):
    """Refused, DNS, TLS, no route: no byte of the request was answered."""

    side, status, type, code, retryable = Side.UPSTREAM, 502, "server_error", "upstream_unreachable", True


class UpstreamCut(EdgeError):
    """The upstream ended without saying it was done."""

    side, status, type, code, retryable = Side.UPSTREAM, 502, "server_error", "upstream_cut", True


class UpstreamBroken(EdgeError):
    """The upstream answered with something that is not the surface it claims to speak."""

    side, status, type, code, retryable = Side.UPSTREAM, 502, "server_error", "upstream_error", True


class AnswerTooLarge(UpstreamBroken):
    """The upstream's answer is over a bound of ours; whoever is asked next would send as much."""

    retryable = False


class UpstreamTimeout(EdgeError):
    """Connect, first token, a gap between tokens or the whole answer took too long."""

    side, status, type, code, retryable = Side.UPSTREAM, 504, "server_error", "upstream_timeout", True


class UpstreamSaid(EdgeError):
    """The upstream's own error: a 4xx/5xx answer, or an error event inside a 200.

    Args:
        status: What the upstream answered (inside a 200: what Edge makes of it, 502).
        body: The upstream's JSON error object, whole, or None when it sent something else.
    """

    side, type, code = Side.UPSTREAM, "server_error", "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, headers=headers)
        self.status = status
        self.body = body
        if status < 500:
            self.type, self.code = _BY_STATUS.get(status, ("invalid_request_error", "invalid_request"))
        self.retryable = status >= 500 or status in (408, 429)


_BY_STATUS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("not_found_error", "not_found"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
