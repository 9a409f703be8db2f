"""One upstream as Edge knows it: what it serves, whether it is up, and how a look changes that.

In: what a look found, and the failures that the exchange met. Out: a ``Member``, read by routing and by the relay.
Must not: do I/O, or log: whoever changes it does.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from yarl import URL

from edge.policy.model_names import spellings
from edge.policy.outcomes import Outcomes
from edge.policy.queue.queue import Queue
from edge.protocol.canonical import Target
from edge.protocol.ollama_defaults import Defaults
from edge.protocol.surface import OLLAMA, Surface
from edge.protocol.transcode import reachable, target
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.discovery.edges import Ways
from edge.upstream.discovery.servers import CLOUDS, TRAITS, Card, Found, Kind
from edge.upstream.ports import Upstream

_REFUSALS: Mapping[str, Literal["never", "auto", "always"]] = {"warn": "never", "auto": "auto", "refuse": "always"}
MISSES_TO_BE_GONE = 2  # one late or failed answer is a restart or a hiccup


class Member:
    """A candidate for routing (``policy.routing.Candidate``), and the way to it.

    Args:
        configured: Named in the settings, hence trusted to be a model server even if it has no model list.

    Attributes:
        upstream: Opens calls to it.
        queue: Where a request for a model waits for a slot of it.
        native: The surfaces that it speaks itself; ``surfaces`` are those that it can answer, translated if need be.
        kind: What was recognised there, as a word for people.
        url: Where it is, without any secret; empty if it is in Edge itself.
        why: Why it is not up, as a phrase that follows its name; None while it is up.
        spellings: The models by their canonical names, see ``names``.
        model_cards: The entries of its last model list, as they came; kept while it is down.
        ways: Of another Edge, how it reaches its models; None for a model server, and for an Edge that does not say.
        any_model: It answers whatever model is named.
        repairs: Faults of its streams that are mended.
        buffers_calls: It may be silent while it writes a tool call.
        stops_unstreamed: See ``servers.Traits``.
        slots: Requests that it is given at once; None = any number.
        active: Requests of ours that it is working on; the exchange counts.
        misses: Failed looks in a row.
        defaults: What an Ollama is asked for where a request names nothing else.
        version: What it calls itself; empty if it does not say.
        thoughtless: Models that it has said cannot think, since it last listed others.
        outcomes: What came of the requests that it was asked.
        since: Unix time when it became known.
    """

    upstream: Upstream
    queue: Callable[[str | None], Queue]
    slots: int | None

    def __init__(self, settings: UpstreamSettings, kind: Kind = Kind.GENERIC, *, configured: bool = True) -> None:
        self.name = settings.name
        self.url = str(URL(settings.url).origin()) if settings.url else ""
        self.up = False
        self.why: str | None = "has not answered yet"
        self.any_model = False
        self.model_cards: list[Card] = []
        self.models: frozenset[str] = frozenset()
        self.spellings: Mapping[str, str] = {}
        self.ways: Ways | None = None
        self.active = 0
        self.misses = 0
        self.outcomes = Outcomes()
        self.since = int(time.time())
        self._settings = settings
        self.defaults = Defaults(settings.num_ctx, _keep_alive(settings.keep_alive))
        self.version = ""
        self.thoughtless: set[str] = set()
        self._configured = configured
        self._reported_slots: int | None = None
        self._become(kind)

    def __repr__(self) -> str:
        state = f"up, {len(self.models)} models, {self.active} active" if self.up else f"down: {self.why}"
        return f"<Member {self.name} {self.kind} {self.url} {state}>"

    def update(self, found: Found) -> None:
        """Learn from a look."""
        if self._configured and found.listless:
            kind = found.kind if found.kind in TRAITS else Kind.GENERIC
            found = replace(found, kind=kind, up=True, why=None, cards=())
        if found.kind in TRAITS:
            self._answered(found)
        else:
            self._missed(found)

    def fail(self, why: str) -> None:
        """Down at once, until a look finds it up."""
        self.up, self.why = False, why
        self.outcomes.forget()

    @property
    def trouble(self) -> str | None:
        """Why it is of no use now, as a phrase that follows its name: it is not up, or it fails; None if it is."""
        return self.why if self.why is not None else self.outcomes.failing

    def target(self, surface: Surface, *, raw: bool = False, format_field: str = "") -> Target | None:
        """In whose words it is asked for ``surface``; None if it speaks that itself. See ``transcode.target``.

        Args:
            surface: The client's.
            raw: See ``Prepared``.
            format_field: See ``Prepared``. A server that would pass over it is asked in other words.
        """
        ignored = TRAITS[self.kind].ignored_formats if format_field else frozenset[str]()
        native = self.native - {Surface.MESSAGES} if format_field in ignored else self.native
        spoken = target(surface, native, raw=raw)
        if spoken is None or spoken is surface:
            return None
        needed_for = frozenset[str]() if native is self.native else ignored
        if spoken not in OLLAMA:
            return Target(spoken, self.name, cloud=self.kind in CLOUDS, needed_for=needed_for)
        return Target(
            spoken, self.name, num_ctx=self.defaults.num_ctx, keep_alive=self.defaults.keep_alive,
            refuses_cuts=_REFUSALS[self._settings.on_truncation], needed_for=needed_for,
        )  # fmt: skip

    def targets(self, surface: Surface) -> list[Target]:
        """All that ``target`` may answer, as far as that depends on what is in a request."""
        formats = sorted(TRAITS[self.kind].ignored_formats) if surface is Surface.MESSAGES else []
        found = (self.target(surface, format_field=field) for field in ("", *formats))
        return [target for target in found if target is not None]

    def refuses_cuts(self, *, tools: bool) -> bool:
        """Whether a prompt that is too long is to be refused, not cut; ``tools``: the request offers some."""
        return self.kind is not Kind.EDGE and (
            self._settings.on_truncation == "refuse" or (self._settings.on_truncation == "auto" and tools)
        )

    @property
    def settings(self) -> UpstreamSettings:
        """What it was made with."""
        return self._settings

    @property
    def reads_spellings(self) -> bool:
        """It takes other spellings of a name for the same model, as an Ollama does, or an Edge in front of one."""
        return self.kind in (Kind.OLLAMA, Kind.EDGE)

    @property
    def slots_per_model(self) -> bool:
        """Its slots are not one number for all models, but each has so many."""
        return self.kind is Kind.OLLAMA

    def _become(self, kind: Kind) -> None:
        traits, chosen = TRAITS[kind], self._settings
        self.kind = kind
        reported = traits.slots if self._reported_slots is None else self._reported_slots
        self.slots = reported if chosen.max_concurrency is None else chosen.max_concurrency or None
        spoken = frozenset(map(Surface, chosen.surfaces)) or traits.surfaces
        self.native = spoken | frozenset(map(Surface, chosen.relay))
        self.surfaces = reachable(self.native)
        self.buffers_calls = traits.buffers_calls
        self.stops_unstreamed = traits.stops_unstreamed
        self.repairs = traits.repairs if chosen.repairs is None else frozenset[str](chosen.repairs)

    def _answered(self, found: Found) -> None:
        self.misses = 0
        if found.slots is not None or found.kind is not self.kind:
            self._reported_slots = found.slots  # a server too busy to say has not lost its limit
        self.version = found.version
        self._become(found.kind)
        self.up, self.why = found.up, found.why
        if not found.up:
            self.outcomes.forget()
        if found.cards is not None:
            self.model_cards = list(found.cards)
            models = frozenset(card["id"] for card in found.cards)
            if models != self.models:
                self.models, self.spellings = models, spellings(models)
                self.thoughtless = set()
            self.ways = found.ways
            self.any_model = found.listless or (TRAITS[found.kind].answers_any and len(self.models) == 1)

    def _missed(self, found: Found) -> None:
        late = found.kind is Kind.SILENT and self.up
        if late and self.active:
            return  # it is at work for us, and some servers do one thing at a time; the streams' own clocks judge it
        self.misses += 1
        if not late or self.misses >= MISSES_TO_BE_GONE:
            self.fail(found.why or "is gone")


def _keep_alive(text: str) -> str | int | None:
    """As Ollama takes it: a text without a unit is none to it, so seconds are sent as a number."""
    if not text:
        return None
    return int(text) if text.lstrip("+-").isdecimal() else text
