"""Combinations and texts that cannot work, though every value has the right type.

In: settings. Out: conflicts, each with the keys that are part of it. Must not: repeat a configured value, or touch
anything but the certificate files, the scripts and the file of a key set.
"""

import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qsl, urlsplit

from edge.config.authentication import authentication
from edge.config.listen import Listen, is_host, is_ip, is_loopback
from edge.config.listening import addresses, listening
from edge.config.problems import Conflict
from edge.settings import CLOUD_URLS, READS, RELAY_PATHS, SURFACE_NAMES, URLLESS, Settings, Upstream

_VISIBLE = re.compile(r"[!-~]+")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_DURATION = re.compile(r"[+-]?(\d+|0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+)")  # as Go reads it, or whole seconds
_RELAYED_KINDS = ("openai-compatible", "ollama")  # the others are spoken to in their own ways, not relayed
_SURFACES = (*get_args(SURFACE_NAMES), "session", READS, *get_args(RELAY_PATHS))
_SIMULATED = frozenset({"chat", "completions", "embeddings"})
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - recognised here, not bound

# Headers that belong to the connection, to the body, or to Edge's own promises (the last line: an encoding it could
# not look into, its own request id, what keeps requests from going in a circle, and what makes llama.cpp generate on
# after a disconnect).
_NOT_SETTABLE = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
        *("expect", "host", "content-length", "content-type", "content-encoding"),
        *("accept-encoding", "x-request-id", "cdn-loop", "x-conversation-id"),
    }
)


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """Everything in the settings that cannot work."""
    for rule in _RULES:
        yield from rule(settings)


def _browsers(settings: Settings) -> Iterator[Conflict]:
    for n, host in enumerate(settings.server.allowed_hosts, start=1):
        if host != "*" and not _is_host_header(host):
            message = f'item {n} must be a host name without scheme or port ([IPV6] in brackets), or "*"'
            yield Conflict(("server.allowed_hosts",), message)
    for n, origin in enumerate(settings.server.cors_origins, start=1):
        if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
            yield Conflict(("server.cors_origins",), f'item {n} must be SCHEME://HOST[:PORT] without a path, or "*"')


def _is_host_header(text: str) -> bool:
    return is_ip(text[1:-1], 6) if text.startswith("[") else is_host(text) and not is_ip(text, 6)


def _bodies(settings: Settings) -> Iterator[Conflict]:
    if settings.server.max_body_bytes > settings.server.bodies_budget_bytes:
        yield Conflict(
            ("server.max_body_bytes", "server.bodies_budget_bytes"),
            "one body may not be larger than server.bodies_budget_bytes, which is for all of them",
        )


def _queue(settings: Settings) -> Iterator[Conflict]:
    queue = settings.queue
    if queue.batch_ageing_s >= queue.batch_wait_s:
        yield Conflict(
            ("queue.batch_ageing_s", "queue.batch_wait_s"),
            "batch_ageing_s must be less than batch_wait_s, after which a batch request is refused",
        )


def _discovery(settings: Settings) -> Iterator[Conflict]:
    for n, port in enumerate(settings.discovery.ports, start=1):
        if not 1 <= port <= 65535:
            yield Conflict(("discovery.ports",), f"item {n} must be a port from 1 to 65535")


def _upstreams(settings: Settings) -> Iterator[Conflict]:
    seen: dict[str, int] = {}
    for n, upstream in enumerate(settings.upstream):
        place = f"upstream[{n}]"
        first = seen.setdefault(upstream.name, n)
        if first != n:
            yield Conflict((f"{place}.name", f"upstream[{first}].name"), f"upstream[{first}] has the same name")
        if upstream.max_concurrency is not None and upstream.max_concurrency < 0:
            yield Conflict((f"{place}.max_concurrency",), "must be at least 0, which is no limit")
        if upstream.keep_alive and not _DURATION.fullmatch(upstream.keep_alive):
            yield Conflict((f"{place}.keep_alive",), 'must be seconds ("300", "-1" = for ever) or have units ("1h30m")')
        if upstream.kind in URLLESS:
            yield from _simulator(place, upstream)
            continue
        url = upstream.url or CLOUD_URLS.get(upstream.kind, "")
        if fault := _url_fault(url):
            yield Conflict((f"{place}.url",), fault)
        elif _is_edge(url, addresses(settings)):
            yield Conflict((f"{place}.url", "server.listen"), "is Edge's own address (server.listen)")
        if upstream.api_key and not _VISIBLE.fullmatch(upstream.api_key):
            yield Conflict((f"{place}.api_key",), "has a space, a line end or another character no header can carry")
        yield from _cloud(place, upstream)
        if upstream.relay and upstream.kind not in _RELAYED_KINDS:
            message = f"is of no use with kind = {upstream.kind}; only {' and '.join(_RELAYED_KINDS)} are relayed"
            yield Conflict((f"{place}.relay", f"{place}.kind"), message)
        yield from _ca_file(place, upstream)
        yield from _headers(place, upstream)


def _simulator(place: str, upstream: Upstream) -> Iterator[Conflict]:
    for name in ("url", "api_key", "ca_file", "headers"):
        if getattr(upstream, name):
            yield Conflict((f"{place}.{name}",), "is of no use to a simulator, which is in Edge itself")
    if not _SIMULATED.issuperset(upstream.surfaces):
        message = f"a simulator speaks {', '.join(sorted(_SIMULATED))} only; Edge translates the others"
        yield Conflict((f"{place}.surfaces",), message)
    if upstream.script:
        try:
            Path(upstream.script).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield Conflict((f"{place}.script",), "the file is not UTF-8 text")
        except (OSError, ValueError) as error:
            yield Conflict((f"{place}.script",), f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}")


def _cloud(place: str, upstream: Upstream) -> Iterator[Conflict]:
    if upstream.kind not in CLOUD_URLS:
        return
    if not upstream.api_key:
        yield Conflict((f"{place}.api_key", f"{place}.kind"), f"an upstream of kind {upstream.kind} needs an api_key")
    if find_spec(upstream.kind) is None:  # its SDK is called like the kind
        message = (
            f"needs the Python package {upstream.kind}, which is not installed: pip install '{upstream.kind}[aiohttp]'"
        )
        yield Conflict((f"{place}.kind",), message)


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        plausible = parts.scheme in ("http", "https") and parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        plausible = False
    if not plausible or not _VISIBLE.fullmatch(url):
        return "must be http://HOST:PORT or https://HOST[:PORT]"
    if "@" in parts.netloc:
        return "must not hold a user or password: use api_key or headers"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment"
    if parts.path.rstrip("/").endswith("/v1"):
        return "leave out /v1: Edge adds the path of each route"
    return None if parts.path in ("", "/") else "leave out the path: Edge adds the path of each route"


def _is_edge(url: str, own: list[Listen]) -> bool:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return is_loopback(host) and any(
        address.kind == "tcp" and address.port == port and (address.loopback or address.host in _EVERYWHERE)
        for address in own
    )


def _ca_file(place: str, upstream: Upstream) -> Iterator[Conflict]:
    key = f"{place}.ca_file"
    if not upstream.ca_file:
        return
    if not (upstream.url or CLOUD_URLS.get(upstream.kind, "")).lower().startswith("https:"):
        yield Conflict((key, f"{place}.url"), "is only of use with an https:// url")
        return
    try:
        Path(upstream.ca_file).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=upstream.ca_file)
    except ssl.SSLError:
        yield Conflict((key,), "the file holds no PEM certificate that can be read")
    except (OSError, ValueError) as error:
        yield Conflict((key,), f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}")


def _headers(place: str, upstream: Upstream) -> Iterator[Conflict]:
    key = f"{place}.headers"
    names = Counter(name.lower() for name in upstream.headers)
    for n, (name, value) in enumerate(upstream.headers.items(), start=1):
        if not _TOKEN.fullmatch(name):
            yield Conflict((key,), f"the name of header {n} has characters that a header's name cannot have")
        elif name.lower() in _NOT_SETTABLE:
            yield Conflict((key,), f"{name} cannot be set: the connection, the body or Edge itself decides it")
        elif name.lower() == "authorization" and upstream.api_key:
            yield Conflict((key, f"{place}.api_key"), f"{name} and api_key exclude each other")
        elif names[name.lower()] > 1:
            names[name.lower()] = 0  # one problem, not one for each of them
            yield Conflict((key,), f"{name} is there more than once")
        if _CONTROL.search(value):
            yield Conflict((key,), f"the value of header {n} has a line end or another control character")


def _limits(settings: Settings) -> Iterator[Conflict]:
    seen: dict[str, int] = {}
    for n, limit in enumerate(settings.limit):
        place = f"limit[{n}]"
        first = seen.setdefault(limit.name, n)
        if first != n:
            yield Conflict((f"{place}.name", f"limit[{first}].name"), f"limit[{first}] has the same name")
        for name in ("principals", "models", "surfaces"):
            if "" in getattr(limit, name):
                yield Conflict((f"{place}.{name}",), f"item {getattr(limit, name).index('') + 1} is empty")
        for item, glob in enumerate(limit.surfaces, start=1):
            if glob and not any(fnmatchcase(surface, glob) for surface in _SURFACES):
                message = f"item {item} matches no surface; there are {', '.join(_SURFACES)}"
                yield Conflict((f"{place}.surfaces",), message)


def _store(settings: Settings) -> Iterator[Conflict]:
    url = settings.store.url
    kind = url.partition(":")[0]
    if url != "memory:" and not url.startswith(("sqlite:", "redis://", "rediss://")):
        yield Conflict(("store.url",), "must be memory:, sqlite:, sqlite:PATH or redis://HOST:PORT/DB")
    elif kind in ("redis", "rediss"):
        try:
            parts = urlsplit(url)
            database = parts.path.strip("/")
            fine = is_host(parts.hostname or "") and parts.port != 0 and (not database or database.isdecimal())
            options = parse_qsl(parts.query, keep_blank_values=True)
        except ValueError:
            fine, options = False, []
        if not fine:
            yield Conflict(("store.url",), "must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], or rediss://… for TLS")
        elif strange := sorted(name for name, _ in options if name != "db" and not name.startswith("ssl_")):
            yield Conflict(("store.url",), f"only db and ssl_… may follow the ?, not {', '.join(strange)}")
        elif any(name == "db" and value.lstrip("0") != (database or value).lstrip("0") for name, value in options):
            yield Conflict(("store.url",), "names two databases: give it after the last /, or as ?db=, not both")
        elif any(name == "db" and not (value.isascii() and value.isdecimal()) for name, value in options):
            yield Conflict(("store.url",), "the database, ?db=, must be a number")
    if settings.store.principal_bytes > settings.store.memory_bytes:
        yield Conflict(
            ("store.principal_bytes", "store.memory_bytes"),
            "one principal may not have more than store.memory_bytes, which is for all of them",
        )


_RULES: tuple[Callable[[Settings], Iterator[Conflict]], ...] = (
    listening,
    _browsers,
    _bodies,
    authentication,
    _queue,
    _discovery,
    _store,
    _upstreams,
    _limits,
)
