"""The wait of a request for a slot of an upstream.

In: the upstreams that may be asked. Out: the one whose slot the request has, at once or by a callback; refusals. Must
not: open a call, or decide who is next: ``policy.queue.admission`` does.
"""

from collections.abc import Callable, Sequence

from typing_extensions import override

from edge.errors import InternalError
from edge.policy.queue.admission import Admission
from edge.policy.queue.lanes import Claim
from edge.policy.queue.queue import Queue, Waiter, Waiting
from edge.policy.queue.refusal import Place, Refusal
from edge.stream.ticker import Ticked, Ticker
from edge.upstream.health import Member


class AdmissionTimer(Ticked):
    """Ticks the admission of a process while any request waits."""

    def __init__(self, admission: Admission, ticker: Ticker, clock: Callable[[], float]) -> None:
        self.admission = admission
        self.clock = clock
        self._ticker = ticker

    def __repr__(self) -> str:
        return f"<AdmissionTimer {self.admission!r}>"

    @override
    def tick(self, now: float) -> None:
        self.admission.tick(now)
        self.update()

    def update(self) -> None:
        """Start or stop ticking: a request has begun to wait, or stopped."""
        if self.admission.pending:
            self._ticker.add(self)
        else:
            self._ticker.discard(self)


class SlotTaker:
    """What waits for a slot. Exactly one of these is called, once, when its wait ends; neither may raise."""

    __slots__ = ()

    def admitted(self, member: Member) -> None:
        """It has a slot of this upstream."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """It will not get a slot."""
        raise NotImplementedError


class SlotWait(Waiter):
    """The wait of one exchange, begun anew for each attempt at another upstream; see the module.

    Args:
        model: The model whose slots it needs, where each model has its own.
    """

    __slots__ = ("_admitting", "_claim", "_model", "_queues", "_taker", "_waiting")

    def __init__(self, admitting: AdmissionTimer, claim: Claim, model: str | None, taker: SlotTaker) -> None:
        self._admitting = admitting
        self._claim = claim
        self._model = model
        self._taker = taker
        self._queues: dict[Queue, Member] | None = None  # where it waits, and whose queues they are
        self._waiting: Waiting | None = None

    def __repr__(self) -> str:
        return f"<SlotWait {self._waiting!r}>"

    @property
    def waits(self) -> bool:
        """Whether it waits for a slot."""
        return self._waiting is not None and self._waiting.slot is None

    @property
    def wanted(self) -> bool:
        """Whether another request waits for the slot that this one has."""
        waiting = self._waiting
        return waiting is not None and waiting.slot is not None and bool(waiting.queue and waiting.queue.waiting)

    @property
    def place(self) -> Place | None:
        """Its place in the queue; None if it does not wait."""
        waiting = self._waiting
        return None if waiting is None or waiting.slot is not None else waiting.place(self._admitting.clock())

    def ask(self, members: Sequence[Member], *, first: bool = False) -> Member | Refusal | None:
        """Ask for a slot of any of these upstreams, the preferred one first.

        Args:
            members: At least one.
            first: See ``Admission.enter``.

        Returns:
            The upstream whose slot it has at once; None if it waits; a refusal if it will not get one.
        """
        admitting = self._admitting
        queues = [member.queue(self._model) for member in members]
        answer = admitting.admission.enter(self._claim, queues, self, admitting.clock(), first=first)
        if isinstance(answer, Refusal):
            return answer
        self._waiting = answer
        if answer.queue is not None:
            return members[queues.index(answer.queue)]
        self._queues = dict(zip(queues, members, strict=True))
        admitting.update()
        return None

    def give_back(self, *, cut_off: bool, sent: bool) -> None:
        """Give the slot back, or stop waiting for one; idempotent.

        Args:
            cut_off: The server may still be at work.
            sent: The server has got the request.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        now = self._admitting.clock()
        if waiting.slot is None:
            waiting.leave(now)
            self._admitting.update()
        else:
            waiting.slot.release(now, draining=cut_off, served=sent)

    @override
    def granted(self, waiting: Waiting) -> None:
        self._admitting.update()
        queues, self._queues = self._queues, None
        if queues is None or waiting.queue is None:
            raise InternalError("a slot was granted that nobody waits for")
        self._taker.admitted(queues[waiting.queue])

    @override
    def refused(self, refusal: Refusal) -> None:
        self._waiting = None
        self._admitting.update()
        self._taker.refused(refusal)
