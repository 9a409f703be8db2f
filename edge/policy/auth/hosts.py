"""Which Host names are answered, and which browser origins may read the answers.

In: the settings, once; then a request's Host and Origin. Out: nothing or Forbidden; the CORS headers to send.
Must not: resolve names, or reflect a value that was not checked.

The Host check is against DNS rebinding: a web page whose name is made to point at 127.0.0.1 reaches a server that has
no keys as if it were same-origin, but its browser still sends the page's own name.
"""

import ipaddress
import re

from edge.errors import Forbidden

_SHOWN_CHARS = 100
_MOST_ANSWERED = 64
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
_MAX_HEADER_NAMES = 64
_MAX_AGE_S = 600

EXPOSED = (
    "request-id, x-request-id, x-stream-id, x-edge-upstream, x-edge-estimated, server-timing, openai-processing-ms, "
    "retry-after, retry-after-ms, x-should-retry, x-edge-queue-position, x-edge-queue-length, x-edge-queue-estimate, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
_USUAL_HEADERS = "authorization, content-type, x-api-key, api-key, anthropic-version, x-request-id, last-event-id"

Host = tuple[str, str | None]


class Hosts:
    """The Host names that are answered.

    Args:
        allowed: Names or IP literals, with a port or without (any port), besides loopback ones; ``*`` allows any.
        have_keys: With keys the check is made only if ``allowed`` says something: a rebound page knows no key.

    Raises:
        ValueError: an entry that is neither; the message is for the person who wrote it.
    """

    def __init__(self, allowed: list[str], *, have_keys: bool) -> None:
        self._any = "*" in allowed or (have_keys and not allowed)
        self._allowed: set[Host] = set()
        self._answered: set[str] = set()  # headers as they came: distinguishing an address from a name takes 20 µs
        for entry in allowed:
            host = _parse(entry)
            if host is None and entry != "*":
                raise ValueError(f'server.allowed_hosts: "{_shown(entry)}" is not HOST or HOST:PORT')
            if host is not None:
                self._allowed.add(host)

    def check(self, host_header: str | None, *, trusted: bool = False) -> None:
        """Refuse a request for a Host that is not ours.

        Args:
            host_header: None if there was none, which no browser does: HTTP/1.0 health checks do.
            trusted: The request came over a Unix socket, where no browser comes from.

        Raises:
            Forbidden: not on the list.
        """
        if self._any or trusted or host_header is None or host_header in self._answered:
            return
        host = _parse(host_header)
        if host is not None:
            name, _ = host
            if _is_loopback(name) or host in self._allowed or (name, None) in self._allowed:
                if len(self._answered) < _MOST_ANSWERED:
                    self._answered.add(host_header)
                return
        raise Forbidden(f'the Host "{_shown(host_header)}" is not answered here; add it to server.allowed_hosts')


class Origins:
    """The browser origins that may call (CORS); none by default.

    Args:
        allowed: Origins as browsers send them (``https://app.example``); ``*`` allows any.
    """

    def __init__(self, allowed: list[str]) -> None:
        self._any = "*" in allowed
        self._allowed = {origin.lower().rstrip("/") for origin in allowed}

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may call."""
        return self._any or origin.lower() in self._allowed

    def headers(self, origin: str) -> dict[str, str]:
        """What lets a page of this origin read an answer; empty if it may not."""
        return {**self._grant(origin), "Access-Control-Expose-Headers": EXPOSED} if self.allows(origin) else {}

    def preflight(self, origin: str, requested: str | None) -> dict[str, str]:
        """The answer to an OPTIONS preflight; empty if the origin may not call.

        Args:
            origin: The page's.
            requested: Access-Control-Request-Headers. Every well-formed name is granted: SDKs send many, and Edge
                passes only its own list on.
        """
        if not self.allows(origin):
            return {}
        names = [name.strip().lower() for name in (requested or "").split(",")[:_MAX_HEADER_NAMES]]
        granted = ", ".join(name for name in names if _HEADER_NAME.fullmatch(name))
        return {
            **self._grant(origin),
            "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": granted or _USUAL_HEADERS,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }

    def _grant(self, origin: str) -> dict[str, str]:
        if self._any:
            return {"Access-Control-Allow-Origin": "*"}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _parse(text: str) -> Host | None:
    match = _HOST.fullmatch(text.strip().lower())
    if match is None:
        return None
    name = match["name"]
    try:
        return str(ipaddress.ip_address(name.strip("[]"))), match["port"]
    except ValueError:
        return None if name.startswith("[") else (name.removesuffix("."), match["port"])


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN_CHARS])
