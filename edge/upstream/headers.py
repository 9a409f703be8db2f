"""The headers of a request to an upstream: Edge's own, those of the call, and the settings' ``headers``, which win.

In: mappings. Out: one, with each header once. Must not: know which headers may be passed on.
"""

from collections.abc import Mapping

from edge.settings import Upstream as UpstreamSettings

CREDENTIALS = ("Authorization", "x-api-key")


def merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """All headers of all layers; of those with the same name, in whatever case, only the one of the last layer."""
    named = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(named.values())


def credential(settings: UpstreamSettings) -> dict[str, str]:
    """The header with the API key, the same for looking at the server and for calling it; empty without a key."""
    if not settings.api_key:
        return {}
    wanted = settings.credential
    if wanted == "auto":
        wanted = "x-api-key" if settings.kind == "anthropic" else "bearer"
    return {"x-api-key": settings.api_key} if wanted == "x-api-key" else {"Authorization": f"Bearer {settings.api_key}"}
