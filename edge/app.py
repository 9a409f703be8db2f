"""The composition root: one Edge process, from settings to listening to drained.

In: settings. Out: a service that can be started and stopped. Must not: decide anything; it connects parts.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import web
from msgspec.structs import replace

from edge.api import management, ollama, openapi, ops, sessions, streams, surfaces, tickets
from edge.api.body import Bodies
from edge.api.callers import Anybody, Callers
from edge.api.face import RequestMiddleware
from edge.api.keyring import KeyRing
from edge.api.observers import LoggingObserver, StoreEvents
from edge.api.server import Listener, connection_limit
from edge.api.tls import Certificate
from edge.config import Listen, parse_listen, reconciled
from edge.exchange.limits import Limits
from edge.exchange.ports import ExchangeRegistry, ExchangeServices
from edge.exchange.sessions import Sessions
from edge.exchange.slot_wait import AdmissionTimer
from edge.settings import Settings
from edge.settings import Upstream as UpstreamSettings
from edge.store.memory.streams import MemoryStreams
from edge.store.opening import Stores
from edge.stream.persistence import StreamArchive
from edge.stream.ticker import Ticker, interval_for
from edge.telemetry import log
from edge.telemetry.metrics import Metrics
from edge.upstream.fleet import Fleet, Member
from edge.upstream.jwks import KeySet
from edge.upstream.pool import Pool
from edge.upstream.ports import Upstream
from edge.upstream.relay.relay import Relay
from edge.upstream.simulator.simulator import Simulator

# After the drain the rest is ended with the truth; this is for that truth to get out, on top of stream.flush_s.
_LAST_WORDS_S = 1.0
_CLOSE_PART_S = 3.0  # each takes milliseconds, unless something that it needs is broken
_CLOSE_STORE_S = 11.0  # a little over what the store gives its last write
_CLOSING_S = 15.0  # all of them, as far as not everything is broken at once
_FIRST_WORDS_S = 0.25  # from accepted to the request; nobody waits for it who asks nothing
_LOOK_S = 0.02
_UNSTORED = "streams and sessions are kept in memory until it is mended; keys are neither read nor made"
_ADMIN_CONNECTIONS = 16  # of scrapers and probes, which are let in however many clients there are


class Follower(Protocol):
    """A part that takes other settings while it runs."""

    def apply_settings(self, settings: Settings) -> None:
        """These are in force now; they have been checked, so this cannot fail."""


class Closing(Protocol):
    """A part that is closed at the end."""

    async def close(self) -> None:
        """Let go of everything."""


class Edge:
    """One process. Made with the loop running; ``stop`` must follow ``start``, however that ended."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.log = log.get_logger()
        self._listens: list[Listen] = [parse_listen(text) for text in settings.server.listen]
        self._admin_listens: list[Listen] = [parse_listen(text) for text in settings.server.admin_listen]
        self._started = False
        own_ports = {listen.port for listen in (*self._listens, *self._admin_listens) if listen.kind == "tcp"}
        self.fleet = Fleet(settings, _upstream, log=self.log, own_ports=own_ports, clock=clock)
        self.registry = ExchangeRegistry()
        self.ticker = Ticker(interval_for(settings.stream), clock)
        self._stores = stores = Stores(settings, StoreEvents(self.registry, self._closed), os.environ)
        self.metrics = Metrics(
            active=lambda: len(self.registry),
            known_models=lambda: self.fleet.known_models,
            store=stores.statistics,
            queues=lambda: (self.fleet.admission.statistics(clock()), self.fleet.admission.totals(clock())),
        )
        self.bodies = Bodies(settings.server)
        observer = LoggingObserver(self.metrics)
        self.sessions = Sessions(stores.sessions, settings.sessions)
        self.archive = StreamArchive(MemoryStreams(settings.store), stores)
        self.limits = Limits(stores.counters(), settings)
        admitting = AdmissionTimer(self.fleet.admission, self.ticker, clock)
        self._services = ExchangeServices(
            settings,
            self.fleet,
            self.registry,
            self.ticker,
            observer,
            clock,
            self.archive,
            self.limits,
            admitting,
            self.bodies.apart,
        )
        self.callers = Callers(
            settings.auth, KeyRing(lambda: stores.keys, self.log), lambda auth: KeySet(auth, self.log)
        )
        self.face = RequestMiddleware(settings, clock, observer, self.callers, self.fleet.hop)
        probes = ops.probes(self.fleet, self.registry, self.callers.closed)
        app = make_app(self._services, self.face, self.bodies, self.sessions, self.metrics)
        app.add_routes(probes)
        app.add_routes(tickets.routes(self.callers, self.bodies))
        self.listener = Listener(app, settings.server, connection_limit(settings.server), self.face)
        self._admin_face = RequestMiddleware(for_operators(settings), clock, observer, Anybody(), self.fleet.hop)
        admin = make_admin_app(self._admin_face, self.metrics, probes)
        self.admin_listener = Listener(admin, settings.server, _ADMIN_CONNECTIONS, self._admin_face)
        kept = (self.sessions, stores, self.archive)
        self._followers: tuple[Follower, ...] = (self.face, self.bodies, *kept, self.limits, self.ticker)

    async def start(
        self, adopted: Mapping[str, Sequence[int]] | None = None, bound: Callable[[], None] | None = None
    ) -> None:
        """Listen, then look for upstreams: a client that is early gets the answer that none is known yet.

        With sockets that others hold it is the other way round: there, clients that are early wait.

        Args:
            adopted: ``sockets`` of the process that this one replaces.
            bound: Called once every address is listened on, before that is logged.

        Raises:
            OSError: an address cannot be listened on, or the certificate cannot be used.
            Unusable: the store cannot be used until somebody mends it.
        """
        problem = self._stores.obstacle()
        if problem is not None:
            self.log.warning("store", problem=problem, effect=_UNSTORED)
        await self._stores.start()
        await self.callers.start()
        held = adopted or any(listen.kind == "systemd" for listen in self._listens)
        if held:
            await self.fleet.start()
        await self._listen(adopted or {})
        self._started = True
        if bound is not None:
            bound()
        admin = {"admin": self.admin_listener.addresses} if self._admin_listens else {}
        self.log.info("listening", addresses=self.listener.addresses, **admin)
        if not held:
            await self.fleet.start()

    async def _listen(self, adopted: Mapping[str, Sequence[int]]) -> None:
        server = self.settings.server
        certificate = Certificate(server.tls_cert, server.tls_key) if server.tls_cert else None
        operators = {str(listen) for listen in self._admin_listens}
        admin_sockets = {address: known for address, known in adopted.items() if address in operators}
        sockets = {address: known for address, known in adopted.items() if address not in operators}
        self.owns_paths = not adopted
        await self.listener.start(self._listens, certificate, sockets)
        if self._admin_listens:
            await self.admin_listener.start(self._admin_listens, certificate, admin_sockets)

    def _closed(self) -> str | None:
        return self.callers.closed()

    @property
    def sockets(self) -> dict[str, list[int]]:
        """The descriptors of all that is listened on, by address."""
        return {**self.listener.sockets, **self.admin_listener.sockets}

    @property
    def owns_paths(self) -> bool:
        """Whether the paths of Unix sockets go when it stops listening."""
        return self.listener.owns_paths

    @owns_paths.setter
    def owns_paths(self, owns: bool) -> None:
        self.listener.owns_paths = self.admin_listener.owns_paths = owns

    async def reload(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Run new exchanges by these settings, as far as that goes without a restart; the others keep theirs.

        Returns:
            What changed, and what needs a restart.

        Raises:
            ConfigError: they cannot be used together with what only a restart changes.
            OSError: the certificate, or the ``ca_file`` of an upstream, cannot be used.
        """
        settings, changed, waiting = reconciled(self.settings, settings)
        self.listener.reload_tls()
        self.admin_listener.reload_tls()
        await self.fleet.reload(settings)
        await self.callers.reload(settings.auth)
        self.settings = self._services.settings = settings
        for follower in self._followers:
            follower.apply_settings(settings)
        self._admin_face.apply_settings(for_operators(settings))
        self.log.info("reloaded", changed=changed, needs_restart=waiting)
        return changed, waiting

    async def retire(self) -> None:
        """Another process has taken over the listening sockets: finish what was begun here, however long that takes.

        Clients that are connected here are served on, each for one more request; those that ask nothing within
        ``server.drain_s`` are let go.
        """
        self.face.leaving = self._admin_face.leaving = True
        self.owns_paths = False
        await self.listener.stop_accepting()
        await self.admin_listener.stop_accepting()
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.server.drain_s
        await _while(lambda: len(self.registry) > 0 or (self.listener.connections > 0 and loop.time() < until))

    @property
    def stops_within_s(self) -> float:
        """How long ``stop`` may take: the drain, the last words, and what is left to close."""
        return self.settings.server.drain_s + self.settings.stream.flush_s + _LAST_WORDS_S + _CLOSING_S

    async def stop(self) -> None:
        """Drain: no new exchanges, the running ones finish or are ended with the truth."""
        settings = self.settings
        await self.listener.stop_accepting()
        await self.admin_listener.stop_accepting()
        await self._hear_out()
        self.bodies.arrivals.leave()
        if len(self.registry):
            self.log.info("draining", streams=len(self.registry), drain_s=settings.server.drain_s)
        await self.registry.drain(settings.server.drain_s, settings.stream.flush_s + _LAST_WORDS_S)
        self.ticker.close()
        for part in (self.listener, self.admin_listener, self.fleet, self.bodies, self.sessions, self.callers):
            await self._close(part, _CLOSE_PART_S)
        await self._close(self.archive, _CLOSE_STORE_S)
        log.write_counts()
        if self._started:
            self.log.info("stopped")

    async def _close(self, part: Closing, within_s: float) -> None:
        """Close a part; one that cannot be closed, or hangs, does not keep the others, nor the process, from ending."""
        try:
            async with asyncio.timeout(within_s):
                await part.close()
        except TimeoutError:
            self.log.warning("not closed", part=type(part).__name__, why=f"not within {within_s:g} s")
        except (OSError, MemoryError) as error:
            self.log.warning("not closed", part=type(part).__name__, why=str(error))
        except Exception:  # whatever it is, the process ends
            self.log.exception("bug")

    async def _hear_out(self) -> None:
        """Serve who was accepted a moment ago and has not said yet what is wanted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _FIRST_WORDS_S
        await _while(lambda: self.listener.connections > len(self.registry) and loop.time() < until)


def make_app(
    services: ExchangeServices, face: RequestMiddleware, bodies: Bodies, conversations: Sessions, metrics: Metrics
) -> web.Application:
    """The aiohttp application for clients."""
    settings = services.settings
    app = web.Application(middlewares=[face.middleware])
    app.on_response_prepare.append(face.on_response_prepare)
    app.add_routes(surfaces.routes(services, bodies))
    app.add_routes(sessions.routes(services, bodies, conversations))
    app.add_routes(streams.routes(services))
    app.add_routes(ollama.routes(services.fleet, bodies))
    app.add_routes(management.routes(services, bodies))
    app.add_routes(ops.models(services.fleet))
    if not settings.server.admin_listen:
        app.add_routes(ops.exposition(metrics.render))
    app.add_routes(openapi.routes(face.asks_for_keys, have_metrics=not settings.server.admin_listen))
    return app


def make_admin_app(face: RequestMiddleware, metrics: Metrics, probes: list[web.RouteDef]) -> web.Application:
    """The application for the operator's own addresses."""
    app = web.Application(middlewares=[face.middleware])
    app.on_response_prepare.append(face.on_response_prepare)
    app.add_routes(probes)
    app.add_routes(ops.exposition(metrics.render))
    return app


def for_operators(settings: Settings) -> Settings:
    """The settings of the operator's own addresses: no browser page may call there."""
    return replace(settings, server=replace(settings.server, cors_origins=[]))


async def _while(waiting: Callable[[], bool]) -> None:
    while waiting():  # noqa: ASYNC110 - aiohttp offers nothing to wait for about its connections
        await asyncio.sleep(_LOOK_S)


def _upstream(pool: Pool, settings: UpstreamSettings, _member: Member) -> Upstream:
    """A member's way to open calls; an SDK is imported only where it is used: 0.5 s and 25 MB or more."""
    if settings.kind == "simulator":
        return Simulator(settings)
    if settings.kind == "openai":
        from edge.upstream.cloud.openai import openai  # noqa: PLC0415 - see above

        return openai(settings)
    if settings.kind == "anthropic":
        from edge.upstream.cloud.anthropic import anthropic  # noqa: PLC0415 - see above

        return anthropic(settings)
    return Relay(pool, settings.name)
