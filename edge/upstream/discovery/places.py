"""The places where Edge looks for model servers: each configured URL, or else the usual loopback ports.

In: the settings. Out: ``Place`` objects, each with the pool that its looks and its member's calls use.
Must not: look by itself, or decide who is used.
"""

import time
from collections.abc import Set as AbstractSet

from msgspec.structs import replace
from yarl import URL

from edge.policy.hops import Hop
from edge.settings import CLOUD_URLS, Settings
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.discovery.clouds import CLOUD_KINDS, CloudLook
from edge.upstream.discovery.servers import CLOUDS, Found, Kind, identify
from edge.upstream.health import Member
from edge.upstream.pool import Pool
from edge.upstream.simulator import simulator

# That are not to be recognised, by the name in the settings.
_KINDS = {**CLOUD_KINDS, "simulator": Kind.SIMULATOR, "ollama": Kind.OLLAMA}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Place:
    """One URL that is looked at.

    Attributes:
        member: Who is there; of a configured place always, of a port only while a model server answers.
        found: What the last look saw.
        pool: Of its connections; a simulator has none in it.
        kind: What it is as long as nothing has answered.
    """

    def __init__(self, settings: UpstreamSettings, hop: Hop, *, configured: bool) -> None:
        self.settings = settings
        self.configured = configured
        self.hop = hop
        self.pool = Pool(settings, hop)
        self.member: Member | None = None
        self.found: Found | None = None
        self.kind = _KINDS.get(settings.kind, Kind.GENERIC)
        self._settled = Kind.OLLAMA if self.kind is Kind.OLLAMA else None  # what is configured holds
        self._cloud = CloudLook(self.kind) if self.kind in CLOUDS else None

    def same(self, other: "Place") -> bool:
        """Whether it is looked at in the same way."""
        return (self.settings, self.configured) == (other.settings, other.configured)

    async def look(self) -> Found:
        """Look at what answers there."""
        if self.kind is Kind.SIMULATOR:
            return simulator.found(self.settings)
        if self._cloud is None:
            return await identify(self.pool, self.found, self._settled)
        return await self._cloud.look(self.pool, time.monotonic(), up=self.member is not None and self.member.up)

    def renew_pool(self) -> Pool:
        """Hand out the pool, whose streams may still be running, and look with another from now on."""
        pool, self.pool = self.pool, Pool(self.settings, self.hop)
        return pool

    def named_for(self, kind: Kind) -> UpstreamSettings:
        """The settings of a member of that kind which was found here: ``lm-studio-1234``."""
        slug = kind.lower().replace(" ", "-")
        return UpstreamSettings(name=f"{slug}-{URL(self.settings.url).port}", url=self.settings.url)

    def is_ours(self, own_ports: AbstractSet[int]) -> bool:
        """Whether Edge itself listens there."""
        url = URL(self.settings.url)
        return url.host in _LOOPBACK and url.port in own_ports


def places(settings: Settings, own_ports: AbstractSet[int], hop: Hop) -> list[Place]:
    """All places to look at; must be called with the loop running.

    Raises:
        OSError: the ``ca_file`` of an upstream cannot be used.
    """
    if settings.upstream:
        return [Place(_placed(upstream), hop, configured=True) for upstream in settings.upstream]
    if not settings.discovery.enabled:
        return []
    return [
        Place(UpstreamSettings(name=f"port-{port}", url=f"http://127.0.0.1:{port}"), hop, configured=False)
        for port in dict.fromkeys(settings.discovery.ports)
        if port not in own_ports
    ]


def _placed(settings: UpstreamSettings) -> UpstreamSettings:
    """With the URL of its kind if it has none of its own."""
    return replace(settings, url=settings.url or CLOUD_URLS.get(settings.kind, ""))
