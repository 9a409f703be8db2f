"""A request's turn at the slots of upstreams: asked for, waited for, given back.

In: the members that may be asked. Out: the one whose slot it has, at once or by a call; refusals. Must not: open
anything, or decide who is next: that is ``policy.queue.admission``.
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
    """The admission of a process, and its clock, which runs while anybody waits; see ``ticker.Ticked``."""

    def __init__(self, admission: Admission, ticker: Ticker, clock: Callable[[], float]) -> None:
        self.admission = admission
        self.clock = clock
        self._ticker = ticker

    def __repr__(self) -> str:
        return f"<AdmissionTimer {self.admission!r}>"

    @override
    def tick(self, now: float) -> None:
        self.admission.tick(now)
        self.keep_time()

    def keep_time(self) -> None:
        """Somebody has begun to wait, or waits no more."""
        if self.admission.pending:
            self._ticker.add(self)
        else:
            self._ticker.discard(self)


class SlotTaker:
    """Whose turn it is. While it waits exactly one of these is called, once; neither may raise."""

    __slots__ = ()

    def admitted(self, member: Member) -> None:
        """It has a slot of this one."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """It will have none."""
        raise NotImplementedError


class SlotWait(Waiter):
    """See the module; the turn of one exchange, taken anew for each upstream.

    Args:
        model: Which model's slots, where each has its own.
    """

    __slots__ = ("_admitting", "_claim", "_model", "_queues", "_taker", "_waiting")

    def __init__(self, admitting: AdmissionTimer, claim: Claim, model: str | None, taker: SlotTaker) -> None:
        self._admitting = admitting
        self._claim = claim
        self._model = model
        self._taker = taker
        self._queues: dict[Queue, Member] | None = None  # where it waits, and whose they are
        self._waiting: Waiting | None = None

    def __repr__(self) -> str:
        return f"<SlotWait {self._waiting!r}>"

    @property
    def waits(self) -> bool:
        """It has no slot yet."""
        return self._waiting is not None and self._waiting.slot is None

    @property
    def wanted(self) -> bool:
        """Somebody waits for the slot that it has."""
        waiting = self._waiting
        return waiting is not None and waiting.slot is not None and bool(waiting.queue and waiting.queue.waiting)

    @property
    def place(self) -> Place | None:
        """Where it is while it waits."""
        waiting = self._waiting
        return None if waiting is None or waiting.slot is not None else waiting.place(self._admitting.clock())

    def ask(self, members: Sequence[Member], *, first: bool = False) -> Member | Refusal | None:
        """Ask for a slot of any of these, the one to be preferred first.

        Args:
            members: At least one.
            first: See ``Admission.enter``.

        Returns:
            The one whose slot it has at once; None if it waits.
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
        admitting.keep_time()
        return None

    def give_back(self, *, cut_off: bool, sent: bool) -> None:
        """It needs no slot any more, had or waited for; idempotent.

        Args:
            cut_off: The server may still be at work.
            sent: It has got something to work on.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        now = self._admitting.clock()
        if waiting.slot is None:
            waiting.leave(now)
            self._admitting.keep_time()
        else:
            waiting.slot.release(now, draining=cut_off, served=sent)

    @override
    def granted(self, waiting: Waiting) -> None:
        self._admitting.keep_time()
        queues, self._queues = self._queues, None
        if queues is None or waiting.queue is None:
            raise InternalError("a slot was granted that nobody waits for")
        self._taker.admitted(queues[waiting.queue])

    @override
    def refused(self, refusal: Refusal) -> None:
        self._waiting = None
        self._admitting.keep_time()
        self._taker.refused(refusal)
