"""How model names are compared. An Ollama reads many spellings as one model, so limits and keys must do so as well.

In: names as clients and operators write them. Out: the one spelling that stands for all of them, and whether a name
fits a list of globs. Must not: know which models there are (``upstream.names`` does).

To an Ollama ``smollm2``, ``SmolLM2:latest``, ``library/smollm2`` and ``registry.ollama.ai/library/smollm2`` are one
model: case does not count, and host, namespace and tag have defaults.
https://github.com/ollama/ollama/blob/main/types/model/name.go
"""

import re
from collections.abc import Iterable
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
