"""What ``edge serve`` shows on a terminal once it listens: where, in front of what, for whom, and what to try.

In: the Edge that has started. Out: some lines of text. Must not: write them, wait for anything, or show a secret.
"""

import os
from pathlib import Path

from edge import __version__
from edge.app import Edge
from edge.policy.routing import printable
from edge.store.opening import shown_url
from edge.upstream.fleet import Member

_SHOWN_MODELS = 4


def start_screen(edge: Edge, config: Path | None) -> str:
    """The screen, as lines; those that a user copies are whole, however narrow the terminal is.

    Args:
        edge: Started.
        config: The file that its settings come from; None for the defaults.
    """
    base = next((url for url in edge.listener.addresses if url.startswith("http")), None)
    members = edge.fleet.members
    rows = [("upstream" if not number else "", _described(member)) for number, member in enumerate(members)]
    if not any(member.up for member in members) and edge.fleet.silent_places:
        looked = ", ".join(url.removeprefix("http://") for url in edge.fleet.silent_places)
        rows.append(("looking", f"no model server yet at {looked}; Edge keeps looking"))
    elif edge.fleet.silent_places:
        rows.append(("looking", ", ".join(url.removeprefix("http://") for url in edge.fleet.silent_places)))
    keys = edge.face.asks_for_keys()
    rows += [
        ("keys", "needed: edge keys create --name NAME makes one" if keys else "none needed"),
        ("state", shown_url(edge.settings.store.url, os.environ)),
        (
            "config",
            str(config.resolve()) if config else "none: defaults and environment (edge init writes one)",
        ),
    ]
    lines = [f"Edge {__version__} listens on {', '.join(edge.listener.addresses)}   (Ctrl-C stops it)", ""]
    lines += [f"  {name:<9} {text}" for name, text in rows]
    if base is not None:
        lines += ["", f"  {_curl(base, _example_model(members), keys=keys)}"]
    return "\n".join([*lines, ""])


def _described(member: Member) -> str:
    head = f"{member.name}  {member.url}".rstrip()
    if not member.up:
        return f"{head}  not up: {member.why}"
    names = [printable(name) for name in sorted(member.models)]
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    return f"{head}  {', '.join(names[:_SHOWN_MODELS]) or 'any model'}{more}"


def _example_model(members: tuple[Member, ...]) -> str:
    """One that answers whatever it is asked: of the simulator's models some fail on purpose."""
    models = [printable(name) for member in members if member.up for name in sorted(member.models)]
    return "echo" if "echo" in models else next(iter(models), "MODEL")


def _curl(base: str, model: str, *, keys: bool) -> str:
    """One line that streams an answer."""
    key = ' -H "Authorization: Bearer $EDGE_API_KEY"' if keys else ""
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"curl -N {base}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"
