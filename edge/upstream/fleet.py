"""All upstreams together: found, watched, reported on, let go.

In: the settings, and what answers at the places they name. Out: the members for routing, readiness, the model list.
Must not: look more than once per interval and place, log a look that changed nothing, cut a stream because its server
does not answer looks, or reveal a secret.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edge.errors import EdgeError, LoopDetected, NoUpstream
from edge.policy.hops import Hop, meet
from edge.policy.model_names import Names
from edge.policy.queue.admission import Admission
from edge.policy.routing import printable
from edge.protocol.canonical import Target
from edge.protocol.surface import OLLAMA, Surface
from edge.settings import Settings
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.discovery.catalogue import listed, merged
from edge.upstream.discovery.places import Place, places
from edge.upstream.discovery.servers import MODEL_SERVERS, Card, Found, Kind
from edge.upstream.health import MISSES_TO_BE_GONE, Member
from edge.upstream.pool import Pool
from edge.upstream.ports import Upstream
from edge.upstream.queues import MemberQueues, rules_of

if TYPE_CHECKING:  # only ``edge.telemetry.log`` may import structlog: plainly imported it brings rich along
    from structlog.typing import FilteringBoundLogger

__all__ = ["Fleet", "Make", "Member"]

FIRST_LOOK_S = 2.5  # a little over one probe: a server that hangs must not hold up the start
LOGGED_MODELS = 20
_AFTER_NEWS_S = 1.0

Make = Callable[[Pool, UpstreamSettings, Member], Upstream]


class Fleet:
    """The upstreams. Made with the loop running; ``close`` must follow, also if ``start`` was cancelled.

    Args:
        make: Gives a member its way to open calls; the pool stays the fleet's.
        own_ports: Loopback ports that Edge itself listens on, which are never used as upstreams.
        clock: Seconds, the same as the admission's.
        hop: This Edge, as others know it; a new one if there is none yet.

    Attributes:
        admission: To the slots of all upstreams.

    Raises:
        OSError: the ``ca_file`` of an upstream cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        make: Make,
        *,
        log: "FilteringBoundLogger",
        own_ports: AbstractSet[int] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        hop: Hop | None = None,
    ) -> None:
        self.hop = hop or Hop()
        self._settings = settings
        self._make = make
        self._log = log
        self._own_ports = own_ports
        self._clock = clock
        self.admission = Admission(rules_of(settings.queue))
        self._queues: dict[Member, MemberQueues] = {}
        self._places = places(settings, own_ports, self.hop)
        self._leaving: list[tuple[Member, Pool]] = []
        self._watcher: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self._closed = False
        self._news = False  # something has changed with the last look, and there are Edges among the members
        for place in self._places:
            if place.configured:
                self._join(place, place.settings, place.kind)

    def __repr__(self) -> str:
        return f"<Fleet {list(self.members)}, {len(self._places)} places, {len(self._leaving)} leaving>"

    @property
    def members(self) -> tuple[Member, ...]:
        """All that are known, up or not, in their order."""
        return tuple([place.member for place in self._places if place.member is not None])

    @property
    def silent_places(self) -> tuple[str, ...]:
        """The URLs that are looked at and have shown no model server yet."""
        return tuple([place.settings.url for place in self._places if place.member is None])

    async def start(self) -> None:
        """Look once, waiting at most ``FIRST_LOOK_S`` for it, and go on looking in the background."""
        self._watcher = asyncio.create_task(self._watch(), name="fleet")
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._looked.wait()
        except TimeoutError:
            pass  # what is slow is looked at in the background like everything else

    async def close(self) -> None:
        """Stop looking and close every connection. Cancelled while waiting, it has still let go of everything."""
        self._closed = True
        async with AsyncExitStack() as stack:  # runs them all, whichever of them is cancelled or fails
            for queues in self._queues.values():
                stack.push_async_callback(queues.close)
            for place in self._places:
                stack.push_async_callback(place.pool.close)
                if place.member is not None:
                    stack.push_async_callback(place.member.upstream.close)
            for member, pool in self._leaving:
                stack.push_async_callback(pool.close)
                stack.push_async_callback(member.upstream.close)
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.wait([self._watcher])

    async def reload(self, settings: Settings) -> None:
        """Be where these settings say, having looked once at what is new; what they leave alone stays as it is.

        Streams of upstreams that are not there any more, or not as they were, run on.

        Raises:
            OSError: the ``ca_file`` of an upstream cannot be used; nothing has changed then.
        """
        wanted = [self._known(place) or place for place in places(settings, self._own_ports, self.hop)]
        new = [place for place in wanted if place not in self._places]
        for place in new:
            if place.configured:
                self._join(place, place.settings, place.kind)
        try:
            await asyncio.gather(*map(self._greet, new))
        except BaseException:
            await self._dismiss(new)
            raise
        self._settings, before, self._places = settings, self._places, wanted
        self.admission.apply_rules(rules_of(settings.queue))
        for queues in self._queues.values():
            queues.apply(settings.queue.drain_s)
        await self._dismiss([place for place in before if place not in wanted])

    async def look(self) -> None:
        """Look at every place now, all at the same time."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._look_at(place))
        await self._see_off()

    def note_failure(self, member: Member) -> None:
        """Connecting to it has just failed: do not route to it until a look finds it up."""
        before = _seen(member)
        member.fail("could not be connected to")
        self._changed(member, before)

    def note_outcome(self, member: Member, error: EdgeError | None) -> None:
        """It has answered a request, or failed to by its own fault; ``error``: what the client gets for it."""
        if member.kind not in MODEL_SERVERS:
            return
        before = _seen(member)
        if error is None:
            member.outcomes.forget()
        else:
            member.outcomes.failed(printable(error.message), self._clock())
        self._log_change(member, before)

    def targets(self, surface: Surface) -> tuple[Target, ...]:
        """In whose words ``surface`` may have to be asked for, of those that are up."""
        found = (target for member in self.members if member.up for target in member.targets(surface))
        return tuple(dict.fromkeys(found))

    @property
    def known_models(self) -> frozenset[str]:
        """The names of all models that are known, whether or not they can be had now."""
        return frozenset[str]().union(*(member.models for member in self.members))

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether anything can be served, and for people: what of, and what not and why."""
        ready = any(member.up and member.trouble is None for member in self.members)
        upstreams = {
            member.name: {
                "up": member.up and member.trouble is None,
                "kind": str(member.kind),
                "models": len(member.models),
                "why": member.trouble,
            }
            for member in self.members
        }
        facts = {"ready": ready, "upstreams": upstreams, "reason": None if ready else self._reason()}
        locked = self.locked
        return ready, {**facts, "locked": list(locked)} if locked else facts

    @property
    def locked(self) -> tuple[str, ...]:
        """A sentence for each port at which something was found that wants a key, which nobody has configured."""
        places = [place for place in self._places if not place.configured and place.member is None]
        return tuple(
            f"{place.settings.url} {place.found.why}: name it in [[upstream]], with its api_key"
            for place in places
            if place.found is not None and place.found.wants_key
        )

    @property
    def _refused_keys(self) -> tuple[str, ...]:
        """A sentence for each configured upstream that wants a key, or another one than it was given."""
        return tuple(
            f"upstream {place.member.name} {place.found.why}: set its api_key in [[upstream]]"
            for place in self._places
            if place.configured and place.member is not None and place.found is not None and place.found.wants_key
        )

    def members_for(self, model: str | None, passed: Sequence[str] = ()) -> tuple[Member, ...]:
        """Those that can be asked for a request that has passed these Edges: none that leads back to one of them.

        Raises:
            LoopDetected: each does.
            NoUpstream: none is up, and there are some that want a key.
        """
        members = self.members
        if not any(member.up for member in members) and (why := (*self._refused_keys, *self.locked)):
            raise NoUpstream(f"no model server can be used: {'; '.join(why)}")
        if not passed or not members:
            return members
        onward = tuple([m for m in members if m.ways is None or not meet(m.ways.to(model), passed)])
        if not onward:
            raise LoopDetected("every upstream that could be asked leads back to an Edge that the request has passed")
        return onward

    def models_for(self, passed: tuple[str, ...]) -> dict[str, Any]:
        """The model list for another Edge; see ``catalogue.listed``."""
        return listed(self.members, self.hop.id, passed)

    def models(self) -> list[Card]:
        """The models that can be had now, each id once."""
        return merged(self.members)

    def model(self, name: str) -> Card | None:
        """One entry of that list."""
        return next((card for card in self.models() if card["id"] == name), None)

    def names(self, surface: Surface) -> Names:
        """Finds what the upstreams call the model that a request for ``surface`` names."""
        members = self.members
        alike = (m.spellings for m in members if m.reads_spellings or surface in OLLAMA)
        return Names(tuple([member.models for member in members]), tuple(alike))

    def _reason(self) -> str:
        if self.members:
            return "; ".join(f"{member.name} {member.trouble}" for member in self.members)
        if self._places:
            urls = ", ".join(place.settings.url for place in self._places)
            return "; ".join((f"no model server has been found yet at {urls}", *self.locked))
        return "no upstream is configured, and discovery is off"

    async def _watch(self) -> None:
        while True:
            try:
                self._news = False
                await self.look()
            except Exception:  # noqa: BLE001 - a bug of ours in one look must not end the looking
                self._log.error("looking for upstreams failed", exc_info=True)
            self._looked.set()
            interval_s = self._settings.discovery.interval_s
            # What one Edge says depends on what another said: news goes through a circle without a wait each time.
            await asyncio.sleep(min(interval_s, _AFTER_NEWS_S) if self._news else interval_s)

    def _known(self, wanted: Place) -> Place | None:
        """The place that is there already, with the same settings."""
        return next((place for place in self._places if place.same(wanted)), None)

    async def _greet(self, place: Place) -> None:
        """The first look at a place that is about to be one of ours, so that it need not begin as one that is down."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                self._learn(place, await place.look())

    async def _dismiss(self, unwanted: list[Place]) -> None:
        """Whoever is there leaves when its streams have ended."""
        for place in unwanted:
            if place.member is not None:
                self._queues[place.member].leave()
                self._leaving.append((place.member, place.pool))
                place.member = None
            else:
                await place.pool.close()

    async def _look_at(self, place: Place) -> None:
        found = await place.look()
        if not self._closed and place in self._places:
            self._learn(place, found)

    def _learn(self, place: Place, found: Found) -> None:
        before, place.found = place.found, found
        if place.configured:
            self._refresh(place, found)
        else:
            self._settle(place, found, before)

    def _settle(self, place: Place, found: Found, before: Found | None) -> None:
        """Somebody comes, goes or stays at a port that nobody vouched for."""
        is_server = found.kind in MODEL_SERVERS
        if place.member is not None and is_server and place.member.kind != found.kind:
            self._let_go(place, f"a different server, {found.kind}, answers there now")
        if place.member is None and is_server:
            self._join(place, place.named_for(found.kind), found.kind)
        if place.member is not None:
            self._refresh(place, found)
            if place.member.misses >= MISSES_TO_BE_GONE:
                self._let_go(place, None)
        if found.wants_key and not _same(found, before):
            fix = "name it in [[upstream]], with its api_key"
            self._log.warning("server not used", url=place.settings.url, why=found.why, fix=fix)
        elif found.kind in (Kind.OTHER, Kind.EDGE) and not _same(found, before):
            seems = found.seems or ("another Edge" if found.kind is Kind.EDGE else "not a model server")
            self._log.info("port left alone", url=place.settings.url, seems=seems, why=found.why)

    def _refresh(self, place: Place, found: Found) -> None:
        member = place.member
        if member is None:
            return
        if found.kind is Kind.EDGE and place.is_ours(self._own_ports):
            found = replace(found, up=False, why="is this Edge itself", listless=False)
        before, ways = _seen(member), member.ways
        member.outcomes.try_again(self._clock())
        member.update(found)
        if (before, ways) != (_seen(member), member.ways):
            self._news = any(one.ways is not None for one in self.members)
        self._changed(member, before)

    def _join(self, place: Place, settings: UpstreamSettings, kind: Kind) -> None:
        place.member = member = Member(settings, kind, configured=place.configured)
        member.upstream = self._make(place.pool, settings, member)
        queues = MemberQueues(self.admission, member, place.pool, self._settings.queue.drain_s, self._clock)
        self._queues[member], member.queue = queues, queues.of

    def _let_go(self, place: Place, why: str | None) -> None:
        member = place.member
        if member is None:
            return
        before = _seen(member)
        if why is not None:
            member.fail(why)
            self._changed(member, before)
        # Its streams, if it has any, run on over the pool that they began on.
        self._queues[member].leave()
        self._leaving.append((member, place.renew_pool()))
        place.member = None

    async def _see_off(self) -> None:
        for leaver in [leaver for leaver in self._leaving if not leaver[0].active]:
            member, pool = leaver
            await self._queues.pop(member).close()
            await member.upstream.close()
            await pool.close()
            self._leaving.remove(leaver)

    def _changed(self, member: Member, before: tuple[object, ...]) -> None:
        if member in self._queues:
            self._queues[member].apply()
        self._log_change(member, before)

    def _log_change(self, member: Member, before: tuple[object, ...]) -> None:
        """One line per change, none for a look that found everything as it was."""
        was_up, was_why, had_models = before
        if _seen(member) == before:
            return
        facts = {"upstream": member.name, "kind": str(member.kind), "url": member.url}
        models = sorted(member.models)[:LOGGED_MODELS]
        is_up, why, _ = _seen(member)
        if is_up and not was_up:
            self._log.info("upstream found", **facts, models=models)
        elif is_up and member.models != had_models:
            self._log.info("upstream models changed", **facts, models=models)
        elif was_up and not is_up:
            self._log.warning("upstream lost", **facts, why=why)
        elif why != was_why:
            self._log.warning("upstream not usable", **facts, why=why)


def _seen(member: Member) -> tuple[object, ...]:
    trouble = member.trouble
    return member.up and trouble is None, trouble, member.models


def _same(found: Found, before: Found | None) -> bool:
    return before is not None and (found.kind, found.mark) == (before.kind, before.mark)
