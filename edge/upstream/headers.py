"""The headers of a request to an upstream: Edge's own, those of the call, and the settings' ``headers``, which win.

In: mappings. Out: one, with each header once. Must not: know which headers may be passed on.
"""

from collections.abc import Mapping


def merged(*layers: Mapping[str, str]) -> dict[str, str]:
    """All headers of all layers; of those with the same name, in whatever case, only the one of the last layer."""
    named = {name.lower(): (name, value) for layer in layers for name, value in layer.items()}
    return dict(named.values())
