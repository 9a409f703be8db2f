"""The places where Edge looks for model servers: each configured URL, or else the usual loopback ports.

In: the settings. Out: ``Place`` objects, each with the pool that its looks and its member's calls use.
Must not: look by itself, or decide who is used.
"""

from collections.abc import Set as AbstractSet

from yarl import URL

from edge.settings import Settings
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.health import Member
from edge.upstream.pool import Pool
from edge.upstream.servers import Found, Kind, identify

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Place:
    """One URL that is looked at.

    Attributes:
        member: Who is there; of a configured place always, of a port only while a model server answers.
        found: What the last look saw.
    """

    def __init__(self, settings: UpstreamSettings, *, configured: bool) -> None:
        self.settings = settings
        self.configured = configured
        self.pool = Pool(settings)
        self.member: Member | None = None
        self.found: Found | None = None

    async def look(self) -> Found:
        """Look at what answers there."""
        return await identify(self.pool, self.found)

    def renew_pool(self) -> Pool:
        """Hand out the pool, whose streams may still be running, and look with another from now on."""
        pool, self.pool = self.pool, Pool(self.settings)
        return pool

    def named_for(self, kind: Kind) -> UpstreamSettings:
        """The settings of a member of that kind which was found here: ``lm-studio-1234``."""
        slug = kind.lower().replace(" ", "-")
        return UpstreamSettings(name=f"{slug}-{URL(self.settings.url).port}", url=self.settings.url)

    def is_ours(self, own_ports: AbstractSet[int]) -> bool:
        """Whether Edge itself listens there."""
        url = URL(self.settings.url)
        return url.host in _LOOPBACK and url.port in own_ports


def places(settings: Settings, own_ports: AbstractSet[int]) -> list[Place]:
    """All places to look at; must be called with the loop running.

    Raises:
        OSError: the ``ca_file`` of an upstream cannot be used.
    """
    if settings.upstream:
        return [Place(upstream, configured=True) for upstream in settings.upstream]
    if not settings.discovery.enabled:
        return []
    return [
        Place(UpstreamSettings(name=f"port-{port}", url=f"http://127.0.0.1:{port}"), configured=False)
        for port in dict.fromkeys(settings.discovery.ports)
        if port not in own_ports
    ]
