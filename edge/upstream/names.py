"""What the upstreams call the model that a client names.

In: the names that the upstreams list. Out: one of those, or what the client wrote if nobody lists such a model. Must
not: take one model for another where a server tells its names apart by case: only an Ollama's are read as an Ollama
reads them, and all of them for clients that speak Ollama's API.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge.policy.model_names import canonical


@dataclass(frozen=True, slots=True)
class Names:
    """See the module. Can be passed to another process.

    Attributes:
        listed: The names that each upstream lists.
        spellings: By canonical spelling, for each upstream whose names have others.
    """

    listed: tuple[frozenset[str], ...]
    spellings: tuple[Mapping[str, str], ...]

    def __call__(self, name: str) -> str:
        """The listed name; ``name`` itself if it is one, or if there is none for it."""
        if not any(name in names for names in self.listed):
            short = canonical(name)
            for known in self.spellings:
                if short in known:
                    return known[short]
        return name


def spellings(models: Iterable[str]) -> dict[str, str]:
    """The models by their canonical spelling; of several the first in order."""
    return {canonical(name): name for name in sorted(models, reverse=True)}
