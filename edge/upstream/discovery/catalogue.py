"""The merged list of models: what ``/v1/models`` shows of all upstreams together.

In: the members, in their order. Out: model objects, each id once. Must not: show a model that cannot be had now, or
drop fields of a card that Edge does not know.
"""

from collections.abc import Iterable
from typing import Any

from edge.policy.hops import meet
from edge.upstream.discovery.edges import EDGE, VIA, Way
from edge.upstream.discovery.servers import Card
from edge.upstream.health import Member


def merged(members: Iterable[Member]) -> list[Card]:
    """The models of all members that are up; of an id that several have, the first member's card."""
    found: dict[str, Card] = {}
    for member in members:
        if member.up:
            for card in member.model_cards:
                found.setdefault(card["id"], _completed(card, member))
    return list(found.values())


def listed(members: Iterable[Member], own: str, asker: tuple[str, ...]) -> dict[str, Any]:
    """The model list for another Edge; see ``edges``.

    Args:
        members: Of this Edge.
        own: This Edge.
        asker: The Edges that the request has passed.
    """
    up = [member for member in members if member.up]
    found: dict[str, tuple[Way, Card]] = {}
    for member in up:
        for card in member.model_cards:
            way = () if member.ways is None else member.ways.to(card["id"])
            known = found.get(card["id"])
            if not meet(way, asker) and (known is None or len(way) < len(known[0])):
                found[card["id"]] = way, _completed(card, member)
    anyway = [() if member.ways is None else member.ways.any for member in up]
    ways = [way for way in anyway if way is not None and not meet(way, asker)]
    return {
        "object": "list",
        "data": [{**card, VIA: way} if way else card for way, card in found.values()],
        EDGE: {"id": own, "via": min(ways, key=len, default=None)},
    }


def _completed(card: Card, member: Member) -> Card:
    """With the fields that the SDKs' model type requires."""
    created, owner = card.get("created"), card.get("owned_by")
    return {
        **card,
        "object": "model",
        "created": created if type(created) is int else member.since,
        "owned_by": owner if isinstance(owner, str) else str(member.kind),
    }
