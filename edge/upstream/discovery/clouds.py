"""Look at a cloud: whether the key is taken, and which models there are.

In: the pool of its URL, and what the last look saw. Out: ``Found``. Must not: recognise anything (a cloud is what it is
configured to be), look more often than is of use, or take a cloud for gone that is only too busy to list its models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from edge.policy.routing import printable
from edge.upstream.discovery.servers import LISTLESS, TOO_LONG_A_LIST, Card, Found, Kind, Mark, ask, cards_in, why_not
from edge.upstream.pool import Pool

PROBE_S = 10.0  # across the internet, TLS included
LOOK_S = 300.0  # between two looks while it is up
REFUSED_LOOK_S = 30.0  # while it refuses: a wrong key stays wrong, and is not to be tried every few seconds

CLOUD_KINDS = {"openai": Kind.OPENAI, "anthropic": Kind.ANTHROPIC}  # by the name in the settings
# Anthropic's list comes in pages, and this is the largest one.
_LISTS: Mapping[Kind, str] = {Kind.OPENAI: "/v1/models", Kind.ANTHROPIC: "/v1/models?limit=1000"}


@dataclass(slots=True)
class CloudLook:
    """Looks at one cloud, when a look is due.

    Attributes:
        found: What the last look saw.
        at: When that was.
    """

    kind: Kind
    found: Found | None = None
    at: float = 0.0

    async def look(self, pool: Pool, now: float, *, up: bool) -> Found:
        """What is there, asked only if that is due; ``up``: it is used, which a failed call may have ended since."""
        if self.found is None or self._due(self.found, now, up=up):
            self.found = await _look(self.kind, pool, self.found)
            self.at = now
        return self.found

    def _due(self, found: Found, now: float, *, up: bool) -> bool:
        if found.up != up or found.mark is None:  # or nobody answered
            return True
        return now - self.at >= (LOOK_S if up else REFUSED_LOOK_S)


async def _look(kind: Kind, pool: Pool, before: Found | None) -> Found:
    answer = await ask(pool, _LISTS[kind], PROBE_S)
    if isinstance(answer, Found):
        return answer
    if answer.too_large:
        return Found(kind, why=TOO_LONG_A_LIST)
    status = answer.head.status
    if before is not None and before.up and (status == 429 or status >= 500):
        return before
    cards = cards_in(answer.body) if status == 200 else None
    mark = Mark(status, printable(answer.head.headers.get("server", "")), cards is not None, frozenset())
    if cards is not None:
        return Found(kind, up=True, cards=tuple(map(_dated, cards)), mark=mark)
    refused = f"does not take the API key (it answers {status} to /v1/models)"
    why = refused if status in (401, 403) else why_not(kind, mark)
    return Found(kind, why=why, listless=status in LISTLESS, mark=mark)


def _dated(card: Card) -> Card:
    """With ``created`` as OpenAI has it, out of Anthropic's ``created_at``."""
    try:
        return {"created": int(datetime.fromisoformat(card["created_at"]).timestamp()), **card}
    except (KeyError, TypeError, ValueError, OverflowError):
        return card
