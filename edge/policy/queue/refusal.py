"""Why somebody is not let in to an upstream, and when to come again.

In: what the queue knows. Out: a ``Refusal``, and the error for the client. Must not: promise a place.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from edge.errors import Busy, EdgeError, RateLimited

UNKNOWN_S = 5  # to come again after, as long as no request has ended yet
MOST_S = 120  # OpenAI's SDKs take more for "never"


class RefusalReason(StrEnum):
    """RefusalReason."""

    FULL = "full"  # as many wait as may
    SHARE = "share"  # likewise, and of those the principal has its part, which others need theirs of
    LATE = "late"  # it has waited for as long as may be
    CLOSED = "closed"  # the upstream is not there any more


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody is in a queue.

    Attributes:
        position: From 1 on, as things stand: whoever comes with a right to go before is not known yet.
        length: How many wait in that lane.
        estimate_s: About how long it takes until it is served; None if nothing has been measured yet.
    """

    position: int
    length: int
    estimate_s: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """No.

    Attributes:
        place: Where it was in the queue, or would have been.
        upstream: The name of the upstream whose queue it was.
    """

    why: RefusalReason
    place: Place
    upstream: str
    waited_s: float = 0.0

    @property
    def retry_after_s(self) -> int:
        """When all who wait now will have been served, by the rate that was measured; within sensible bounds."""
        estimate = self.place.estimate_s
        return UNKNOWN_S if estimate is None else min(MOST_S, max(1, math.ceil(estimate)))

    def error(self) -> EdgeError:
        """The error for the client: 429 where it is the client's own part that is used up, else 503."""
        place = self.place
        headers = {
            "Retry-After": str(self.retry_after_s),
            "retry-after-ms": str(self.retry_after_s * 1000),
            "x-edge-queue-position": str(place.position),
            "x-edge-queue-length": str(place.length),
        }
        if place.estimate_s is not None:
            headers["x-edge-queue-estimate"] = str(math.ceil(place.estimate_s))
        if self.why is RefusalReason.SHARE:
            return RateLimited(
                "too many of your requests are waiting, and others wait too; try again later", headers=headers
            )
        if self.why is RefusalReason.LATE:
            message = f"no slot of {self.upstream} became free within {self.waited_s:.0f} s; try again later"
            return Busy(message, code="queue_timeout", headers=headers)
        if self.why is RefusalReason.CLOSED:
            return Busy(f"{self.upstream} is not served any more; try again", headers=headers)
        return Busy(
            f"{self.upstream} is busy, and {place.length} requests wait already; try again later", headers=headers
        )
