"""How model names are compared. An Ollama reads many spellings as one model, so limits and keys must do so as well.

In: names as clients and operators write them, and those that upstreams list. Out: the one spelling that stands for all
of them; whether a name fits a list of globs; the listed name that a client means. Must not: ask an upstream.

To an Ollama ``smollm2``, ``SmolLM2:latest``, ``library/smollm2`` and ``registry.ollama.ai/library/smollm2`` are one
model: case does not count, and host, namespace and tag have defaults.
https://github.com/ollama/ollama/blob/main/types/model/name.go
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate

_SCHEMES = ("http://", "https://")
_HOST = "registry.ollama.ai/"
_NAMESPACE = "library/"
_LATEST = ":latest"


def canonical(name: str) -> str:
    """The spelling that stands for all: lower case, without the default host and namespace, with a tag."""
    name = name.lower()
    for scheme in _SCHEMES:
        name = name.removeprefix(scheme)
    if name.count("/") == 2:
        name = name.removeprefix(_HOST)
    if name.count("/") == 1:
        name = name.removeprefix(_NAMESPACE)
    return name if ":" in name[name.rfind("/") + 1 :] else name + _LATEST


class Globs:
    """The models of a limit or a key: globs with ``*`` and ``?``, compared as an Ollama compares names.

    A glob that begins with Ollama's default host or namespace fits the names that mean the same without it.
    """

    __slots__ = ("_any", "_in_library", "_on_host")

    def __init__(self, globs: Iterable[str]) -> None:
        every = [glob.lower() for glob in globs]
        on_host = [glob.removeprefix(_HOST) for glob in every if glob.startswith(_HOST)]
        in_library = [glob.removeprefix(_NAMESPACE) for glob in (*every, *on_host) if glob.startswith(_NAMESPACE)]
        self._any, self._on_host, self._in_library = map(_pattern, (every, on_host, in_library))

    def fit(self, name: str) -> bool:
        """Whether one of the globs fits the name, or another spelling of it."""
        short = canonical(name)
        spellings = {name.lower(), short, short.removesuffix(_LATEST)}
        default = self._in_library if "/" not in short else self._on_host
        return any(pattern is not None and any(map(pattern.match, spellings)) for pattern in (self._any, default))


def _pattern(globs: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None


@dataclass(frozen=True, slots=True)
class Names:
    """The names that the upstreams list. Can be passed to another process.

    One model is never taken for another where a server distinguishes names by case: only an Ollama's are read as an
    Ollama reads them, and all of them for clients that speak Ollama's API.

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
