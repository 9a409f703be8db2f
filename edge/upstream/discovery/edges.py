"""Another Edge as an upstream: by way of which Edges its models are reached, and which of them count here.

In: the model list that an Edge gives to another Edge. Out: the models that are not there by way of this Edge alone.
Must not: leave anything of this in a card, which clients are shown.

An Edge that asks names itself (``policy.hops``). The one that answers leaves out what it reaches only by way of the one
that asks, and says of the rest by way of which Edges it is reached; whoever finds itself there does not count it. So a
circle of any length holds a model only as long as one of its Edges has a server with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.policy.hops import ids_in
from edge.protocol.json_text import loads

EDGE = "edge"  # in the list: which Edge this is, and how it reaches anything at all
VIA = "edge_via"  # in a card
Card = dict[str, Any]
Way = tuple[str, ...]  # Edges, the nearest first


@dataclass(frozen=True, slots=True)
class Ways:
    """How an Edge's model servers are reached.

    Attributes:
        any: The shortest way to any of them; None if each leads back here.
        models: The way to each model.
    """

    any: Way | None
    models: Mapping[str, Way] = field(default_factory=dict)

    def to(self, model: str | None) -> Way:
        """The way that a request for this model takes, as far as is known."""
        return (self.any if model is None else self.models.get(model, self.any)) or ()


def read(body: bytes, cards: Iterable[Card], own: str) -> tuple[tuple[Card, ...], Ways] | None:
    """What counts of an Edge's model list; None if the list is not from an Edge that says so.

    Args:
        body: The list.
        cards: The same, decoded.
        own: Who reads it.
    """
    if b'"edge"' not in body:
        return None
    answer = loads(body)
    reported = answer.get(EDGE) if isinstance(answer, dict) else None
    near = ids_in([reported.get("id")]) if isinstance(reported, dict) else None
    if near is None or not isinstance(reported, dict):
        return None
    counted, models = [], {}
    for card in cards:
        way = near + (ids_in(card.get(VIA, [])) or ())
        if own not in way:
            counted.append({name: value for name, value in card.items() if name != VIA})
            models[card["id"]] = way
    beyond = ids_in(reported.get("via"))
    reached = beyond is not None and own not in near + beyond
    return tuple(counted), Ways(near + beyond if reached and beyond is not None else None, models)
