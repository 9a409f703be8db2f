"""Failover: opens the attempts of an exchange, one after the other, each when its upstream has a slot.

In: the request, slots, and how each attempt ended. Out: attempts; the end of the generation once no other attempt
follows. Must not: book time, or have more than one attempt at once.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from typing_extensions import override

from edge.errors import EdgeError, UpstreamCut, UpstreamSaid, UpstreamUnreachable
from edge.exchange.compose import Terms, compose
from edge.exchange.ports import ExchangeRequest, ExchangeServices
from edge.exchange.slot_wait import SlotTaker, SlotWait
from edge.policy.lifecycle import LifecycleEvent, State
from edge.policy.queue.lanes import Claim
from edge.policy.queue.refusal import Place, Refusal, RefusalReason
from edge.policy.routing import route
from edge.protocol.ollama.truncation import Context
from edge.protocol.request import Prepared, unstreamed
from edge.protocol.surface import GENERATING, WITHOUT_MODEL, Surface
from edge.stream.attempt import Attempt, AttemptOwner
from edge.stream.generation import Generation
from edge.upstream.health import Member
from edge.upstream.ports import Call

_NAMES_STREAMING = re.compile(r"\bstream", re.IGNORECASE)  # but not "upstream", which our own messages name
_CANNOT_THINK = "does not support thinking"  # Ollama, as a 400 before any work
# Their clients ask any model to think, and Ollama's own routes for them take it where /api/chat does not.
_THINK_ANYWAY = frozenset({Surface.MESSAGES, Surface.RESPONSES})
_BROKEN = (500, 502, 504)  # not 501, 503 or 529, which a healthy server sends


class Failover(SlotTaker, AttemptOwner):
    """Opens attempts until one brings an answer or none is left; see the module.

    Args:
        services: What all exchanges share.
        asked: Who asked for what.
        prepared: The request.
        claim: For whom its slot is.
        generation: The answer that the attempts work for.
        changed: Called when the request begins to wait for a slot.

    Attributes:
        prepared: The request as the next attempt sends it, without what a server has refused.
        count: How many attempts there have been.
        member: The upstream of the latest one.
        context: How much of the prompt that upstream takes, if it may cut it.
        dropped: Fields of the request that its surface has no place for.
        changed: What was changed of the prompt for it.
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_busy",
        "_candidates",
        "_generation",
        "_judged",
        "_on_wait",
        "_ready",
        "_services",
        "_settings",
        "_slot_wait",
        "_whole",
        "changed",
        "context",
        "count",
        "dropped",
        "member",
        "prepared",
    )

    def __init__(
        self,
        services: ExchangeServices,
        asked: ExchangeRequest,
        prepared: Prepared,
        *,
        claim: Claim,
        generation: Generation,
        changed: Callable[[], None],
    ) -> None:
        self.prepared = prepared
        self.count = 0
        self.member: Member | None = None
        self.context: Context | None = None
        self.dropped: tuple[str, ...] = ()
        self.changed: tuple[str, ...] = ()
        self._services = services
        self._settings = services.settings  # a reload does not change them under a running exchange
        self._asked = asked
        self._generation = generation
        self._attempt: Attempt | None = None  # the latest
        self._on_wait = changed
        self._busy: Member | None = None  # the upstream whose load includes this exchange
        self._candidates: list[Member] = []  # not asked yet
        self._judged = 0  # the number of the latest attempt that was judged
        self._whole = False  # the latest attempt asks for the answer in one body
        self._ready: tuple[Member, Call] | None = None  # composed in advance, for the preferred upstream
        self._slot_wait = SlotWait(services.admitting, claim, prepared.model, self)

    def __repr__(self) -> str:
        return f"<Failover {self.count}, {self._slot_wait!r}>"

    @property
    def upstream(self) -> str | None:
        """The name of the upstream asked last; None if none was."""
        return None if self.member is None else self.member.name

    @property
    def waiting(self) -> bool:
        """Whether the next attempt waits for a slot."""
        return self._slot_wait.waits

    @property
    def wanted(self) -> bool:
        """Whether another request waits for the slot that this one has."""
        return self._slot_wait.wanted

    @property
    def place(self) -> Place | None:
        """Where in the queue the next attempt waits; None if it does not."""
        return self._slot_wait.place

    # --- beginning ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Route the request, and open the first attempt as soon as an upstream has a slot for it."""
        try:
            self._route()
            self._seek()
        except EdgeError as error:
            self._generation.reject(error)
        except Exception as bug:  # noqa: BLE001 - the reader gets a bug as an end like any other
            self._generation.fail(bug)

    def _route(self) -> None:
        prepared = self.prepared
        members = self._services.fleet.members_for(prepared.model, self._asked.passed)
        candidates = route(prepared.surface, prepared.model, members)
        # An upstream that keeps failing is asked only if there is no other.
        self._candidates = [c for c in candidates if c.outcomes.failing is None] or candidates

    def _seek(self, *, first: bool = False) -> None:
        """Open a call as soon as one of the candidates has a slot for it. ``first``: see ``Admission.enter``.

        Raises:
            EdgeError: no candidate will have a slot, or the request cannot be composed, which shows before any wait.
        """
        self._ready = self._compose_preferred()
        answer = self._ask_for_slot(first=first)
        if isinstance(answer, Refusal):
            raise answer.error()
        if answer is None:
            self._on_wait()
        else:
            self._proceed(answer)

    def _ask_for_slot(self, *, first: bool) -> Member | Refusal | None:
        """See ``SlotWait.ask``."""
        if self.prepared.surface in WITHOUT_MODEL:
            return self._candidates[0]
        return self._slot_wait.ask(self._candidates, first=first)

    def _proceed(self, member: Member) -> None:
        """The request has a slot of this upstream: open a call.

        Raises:
            EdgeError: the upstream cannot be asked this, and there is no other.
        """
        self._candidates.remove(member)
        ready, self._ready = self._ready, None
        try:
            call = ready[1] if ready is not None and ready[0] is member else self._compose(member)
        except EdgeError:
            self._slot_wait.give_back(cut_off=False, sent=False)
            if not self._candidates:
                raise
            self._seek(first=True)
        else:
            self.member = self._busy = member
            member.active += 1
            self._open(member, call)

    def _open(self, member: Member, call: Call) -> None:
        self.count += 1
        self.dropped, self.changed, self.context = call.dropped, call.changed, call.context
        self._whole = call.whole
        attempt = self._attempt = Attempt(self._generation, self, self._settings.stream, self._services.clock)
        attempt.open(member.upstream, call)

    def _compose_preferred(self) -> tuple[Member, Call]:
        member = self._candidates[0]
        return member, self._compose(member)

    def _compose(self, member: Member) -> Call:
        services, asked, prepared = self._services, self._asked, self.prepared
        headers = {
            **asked.headers,
            "x-request-id": asked.request_id,
            **services.fleet.hop.onward(asked.passed),
        }
        if prepared.model in member.thoughtless and prepared.surface in _THINK_ANYWAY:
            prepared = replace(prepared, thoughtless=True, crossed=())
        kept = asked.resume or asked.session is not None
        terms = Terms(
            asked.dialect, self._settings.stream, headers, asked.stream_id, asked.upload,
            services.clock, services.apart, asked.id_made, kept,
        )  # fmt: skip
        return compose(prepared, member, terms)

    # --- slot_wait.SlotTaker ------------------------------------------------------------------------------------------

    @override
    def admitted(self, member: Member) -> None:
        try:
            self._proceed(member)
        except EdgeError as error:
            self._generation.reject(error)
        except Exception as bug:  # noqa: BLE001 - as in begin
            self._generation.fail(bug)

    @override
    def refused(self, refusal: Refusal) -> None:
        generation = self._generation
        try:
            if refusal.why is RefusalReason.CLOSED:  # a reload replaced the upstream, perhaps by another one
                self._route()
                self._seek(first=True)
            else:
                late = refusal.why is RefusalReason.LATE
                generation.reject(refusal.error(), LifecycleEvent.QUEUE_TIMEOUT if late else LifecycleEvent.REJECT)
        except EdgeError as error:
            generation.reject(error)
        except Exception as bug:  # noqa: BLE001 - as in begin
            generation.fail(bug)

    # --- another one, and the end ---------------------------------------------------------------------------------

    @override
    def attempt_ended(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """Open another attempt if nothing has been generated yet, else finish the generation."""
        generation = self._generation
        early = generation.state is State.ASKING and not generation.handed_over
        if error is None or happened is LifecycleEvent.BUG or not early or not self._retry(error):
            generation.finish(happened, error)

    def _retry(self, error: EdgeError) -> bool:
        """Open another attempt, now or when an upstream has a slot; False if none follows this failure."""
        upload, member = self._asked.upload, self.member
        self.judge(error)
        unreachable = isinstance(error, UpstreamUnreachable) or error.code == LifecycleEvent.CONNECT_TIMEOUT
        if member is not None and unreachable:
            self._services.fleet.note_failure(member)
        if upload is not None and upload.touched:
            return False
        try:
            again = None if member is None else self._eased(error, member)
            if member is not None and again is not None:
                self.prepared = again
                call = self._compose(member)
                self._generation.retrying()
                self._open(member, call)  # in the slot that it has
                return True
            self._candidates = [other for other in self._candidates if other.up]
            return error.retryable and bool(self._candidates) and self._elsewhere(self._compose_preferred())
        except EdgeError:  # the next upstream cannot be asked this, so the client gets the first failure
            return False

    def judge(self, error: EdgeError | None) -> None:
        """Note, once per attempt, whether its server answered, or failed by its own fault."""
        member = self.member
        if member is None or self._judged == self.count or self.prepared.surface not in GENERATING:
            return
        self._judged = self.count
        if (
            error is None
            or isinstance(error, UpstreamCut)
            or (isinstance(error, UpstreamSaid) and error.status in _BROKEN)
        ):
            self._services.fleet.note_outcome(member, error)

    def _elsewhere(self, ready: tuple[Member, Call]) -> bool:
        """Open an attempt at one of the other candidates, now or when one has a slot; False if that is impossible."""
        generation = self._generation
        self.free()
        self._ready = ready
        answer = self._ask_for_slot(first=True)
        if isinstance(answer, Refusal):
            return False
        if answer is None and not (generation.resumable or generation.readers):
            self.free()  # nobody would read the answer
            return False
        generation.retrying()
        if answer is not None:
            self.admitted(answer)
        return True

    def _eased(self, error: EdgeError, member: Member) -> Prepared | None:
        """The request without what this server has just refused; None if the answer would not be as good."""
        prepared = self.prepared
        if self._refuses_streaming(error):
            return unstreamed(prepared)
        if prepared.surface in _THINK_ANYWAY and not prepared.thoughtless and _CANNOT_THINK in error.message:
            if prepared.model is not None:
                member.thoughtless.add(prepared.model)
            return replace(prepared, thoughtless=True, crossed=())
        return None

    def _refuses_streaming(self, error: EdgeError) -> bool:
        """Whether the server says that it cannot stream this, and only Edge wanted a stream."""
        prepared = self.prepared
        return (
            prepared.streamed
            and not prepared.stream
            and not self._whole
            and isinstance(error, UpstreamSaid)
            and error.status in (400, 422, 501)
            and _NAMES_STREAMING.search(error.message) is not None
        )

    def free(self) -> None:
        """Give back the slot, or stop waiting for one: no attempt runs any more; idempotent."""
        attempt = self._attempt
        self._ready = None
        self._slot_wait.give_back(
            cut_off=attempt is not None and attempt.cut_off, sent=attempt is not None and attempt.sent
        )
        member, self._busy = self._busy, None
        if member is not None:
            member.active -= 1
