"""What the command line says in place of the configuration: addresses, upstreams, the log.

In: the options of ``edge serve`` as they were given. Out: raw values by key, for ``sources``. Must not: check a value
beyond what distinguishes a name from a URL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.*)", re.DOTALL)
_PUNCTUATION = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class CommandLine:
    """The options that override the configuration; each is empty if it was not given.

    Attributes:
        listen: Addresses, in place of ``server.listen``.
        upstreams: Each as ``[NAME=]URL``, in place of all configured upstreams.
        simulator: Settings of a simulator that is then the only upstream; None for no simulator.
        log: Settings of the log, by key.
    """

    listen: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    simulator: Mapping[str, object] | None = None
    log: Mapping[str, object] = field(default_factory=dict)

    @property
    def only_upstreams(self) -> list[dict[str, object]]:
        """The settings of the upstreams that take the place of the configured ones; empty if these hold."""
        if self.simulator is not None:
            return [{"name": "simulator", "kind": "simulator", **self.simulator}]
        return [_upstream(text) for text in self.upstreams]

    @property
    def upstream_option(self) -> str:
        """The option that they come from."""
        return "--upstream" if self.simulator is None else "--simulate"


def _upstream(text: str) -> dict[str, object]:
    """``gpu0=http://10.0.0.2:8000`` or ``localhost:8000``: the name is the URL's host and port unless one is given."""
    named = _NAMED.fullmatch(text)
    name, url = named.groups() if named else ("", text)
    if "://" not in url:
        url = f"http://{url}"
    return {"name": name or _PUNCTUATION.sub("-", url.partition("://")[2].strip("/"))[:64], "url": url}
