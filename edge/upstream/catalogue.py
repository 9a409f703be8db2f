"""The merged list of models: what ``/v1/models`` shows of all upstreams together.

In: the members, in their order. Out: model objects, each id once. Must not: show a model that cannot be had now, or
drop fields of a card that Edge does not know.
"""

from collections.abc import Iterable

from edge.upstream.health import Member
from edge.upstream.servers import Card


def merged(members: Iterable[Member]) -> list[Card]:
    """The models of all members that are up; of an id that several have, the first member's card."""
    found: dict[str, Card] = {}
    for member in members:
        if member.up:
            for card in member.model_cards:
                found.setdefault(card["id"], _completed(card, member))
    return list(found.values())


def _completed(card: Card, member: Member) -> Card:
    """With the fields that the SDKs' model type requires."""
    created, owner = card.get("created"), card.get("owned_by")
    return {
        **card,
        "object": "model",
        "created": created if type(created) is int else member.since,
        "owned_by": owner if isinstance(owner, str) else str(member.kind),
    }
