"""The queues in front of one upstream: one, or one for each model where each model has slots of its own.

In: a member, and what becomes of it. Out: the queue that a request for a model waits in. Must not: route, or grant
anything but by the queues' own rules.
"""

from collections.abc import Callable

from edge.policy.queue.admission import Admission
from edge.policy.queue.lanes import Bounds, Rules
from edge.policy.queue.queue import Queue
from edge.settings import Queue as QueueSettings
from edge.upstream.health import Member
from edge.upstream.idle import IdleWatch, drain_s
from edge.upstream.pool import Pool

_ALL = ""  # the name of the queue of an upstream that has only one, or of the models that it does not list


def rules_of(settings: QueueSettings) -> Rules:
    """What the settings say of the lanes."""
    return Rules(
        interactive=Bounds(settings.interactive_length, settings.interactive_wait_s),
        batch=Bounds(settings.batch_length, settings.batch_wait_s),
        ageing_s=settings.batch_ageing_s,
    )


class MemberQueues:
    """See the module.

    Args:
        member: Whose queues they are.
        pool: Of its connections, for asking whether it is idle.
        most_drain_s: ``queue.drain_s``.
        clock: Seconds, the same as the admission's.
    """

    def __init__(
        self, admission: Admission, member: Member, pool: Pool, most_drain_s: float, clock: Callable[[], float]
    ) -> None:
        self._admission = admission
        self._member = member
        self._most_drain_s = most_drain_s
        self._clock = clock
        self._queues: dict[str, Queue] = {}
        self._closed = False
        self._watch = IdleWatch(pool, lambda: member.kind, clock)

    def __repr__(self) -> str:
        return f"<MemberQueues {list(self._queues.values())}>"

    def of(self, model: str | None) -> Queue:
        """Where a request for this model waits."""
        key = self._key(model)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = self._make(key)
        return queue

    def apply(self, most_drain_s: float | None = None) -> None:
        """The member is up or down, or another server, or has other slots; or other settings are in force."""
        if most_drain_s is not None:
            self._most_drain_s = most_drain_s
        if self._closed:
            return
        member, now = self._member, self._clock()
        for key, queue in tuple(self._queues.items()):
            queue.slots.drain_s = drain_s(member.kind, self._most_drain_s)
            if key != self._key(key or None) and not queue.slots.taken and not queue.waiting:
                self._admission.close(queue, now)
                del self._queues[key]
                continue
            if member.up:
                queue.resize(member.slots, now)
                queue.resume(now)
            else:
                queue.pause()

    def leave(self) -> None:
        """The member is let go of: nobody waits for it any more, and what runs runs on."""
        self._closed = True
        for queue in self._queues.values():
            self._admission.close(queue, self._clock())

    async def close(self) -> None:
        """Nothing runs any more."""
        self.leave()
        await self._watch.close()

    def _key(self, model: str | None) -> str:
        member = self._member
        if model is None or not member.slots_per_model:
            return _ALL
        name = model if ":" in model else f"{model}:latest"  # Ollama's own reading
        return name if name in member.models else model if model in member.models else _ALL

    def _make(self, key: str) -> Queue:
        member = self._member
        name = f"{member.name} ({key})" if key else member.name
        drains_s = drain_s(member.kind, self._most_drain_s)
        queue = self._admission.queue(name, member.slots, drains_s, self._watch.watch, upstream=member.name)
        if self._closed:
            self._admission.close(queue, self._clock())
        elif not member.up:
            queue.pause()
        return queue
