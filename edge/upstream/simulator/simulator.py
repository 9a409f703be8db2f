"""The simulator: an upstream without a network or a model, for developing clients.

In: a ``Call``. Out: pushes into the sink, as if the bytes of a model server's answer had come, one piece each
``pace_s``. Must not: push from within ``open``, or hold more than one timer per call; what is answered is
``simulated_server``'s.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.discovery.servers import Found, Kind
from edge.upstream.ports import Call, Sink, Source, Upstream
from edge.upstream.relay.bodies import Body, Receiver, Work, broken_by
from edge.upstream.relay.body_choice import body_for
from edge.upstream.simulator.models import Ending
from edge.upstream.simulator.server import models, reply


def found(settings: UpstreamSettings) -> Found:
    """What a look at it sees: it is always up."""
    names = models(scripted=bool(settings.script))
    return Found(Kind.SIMULATOR, up=True, cards=tuple({"id": name} for name in names))


class Simulator(Upstream):
    """An upstream of kind ``simulator``.

    Raises:
        OSError: the script cannot be read.
        UnicodeDecodeError: it is no text.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        self.name = settings.name
        self.pace_s = settings.pace_s
        self.script = Path(settings.script).read_bytes().decode("utf-8-sig") if settings.script else None
        self._sources: set[SimulatorSource] = set()

    @override
    def open(self, call: Call, sink: Sink) -> "SimulatorSource":
        source = SimulatorSource(self, call, sink)
        self._sources.add(source)
        return source

    def over(self, source: "SimulatorSource") -> None:
        """Told by each source at its end."""
        self._sources.discard(source)

    @override
    async def close(self) -> None:
        for source in tuple(self._sources):
            source.abort()


class SimulatorSource(Source):
    """One call in progress."""

    __slots__ = ("_answer", "_ending", "_over", "_paused", "_pieces", "_simulator", "_sink", "_timer", "_work")

    def __init__(self, simulator: Simulator, call: Call, sink: Sink) -> None:
        self._simulator = simulator
        self._sink = sink
        self._answer: Body | None = None  # what takes the answer, once it has begun
        self._work = Work()
        self._pieces: Iterator[bytes] = iter(())
        self._ending = Ending.WHOLE
        self._paused = False
        self._over = False
        self._timer: asyncio.Handle | None = asyncio.get_running_loop().call_soon(self._begin, call)

    def __repr__(self) -> str:
        state = "over" if self._over else "paused" if self._paused else "flowing"
        return f"<SimulatorSource {self._simulator.name} {state}>"

    @override
    def pause(self) -> None:
        """The simulated model waits."""
        self._paused = True
        if self._answer is not None:
            self._stop_timer()

    @override
    def resume(self) -> None:
        self._paused = False
        self._go_on()

    @override
    def abort(self) -> None:
        """It may be called from within a push."""
        self._leave()

    def _begin(self, call: Call) -> None:
        self._timer = None
        self._sink.connected()
        if self._over:  # aborted from within the push
            return
        simulator = self._simulator
        try:
            replied = reply(call.surface, call.body, simulator.script)
            self._pieces, self._ending = replied.pieces, replied.ending
            self._answer = body_for(replied.head, self._receiver(call))
        except Exception as bug:  # noqa: BLE001 - a bug of ours must reach the client as one, not as a hang
            self._fail(bug)
        self._go_on()

    def _receiver(self, call: Call) -> Receiver:
        return Receiver(self._simulator.name, call, self._sink, self._end, self._use, self._work)

    def _use(self, body: Body) -> None:
        self._answer = body

    def _go_on(self) -> None:
        if self._answer is not None and self._timer is None and not (self._paused or self._over):
            self._timer = asyncio.get_running_loop().call_later(self._simulator.pace_s, self._bring)

    def _bring(self) -> None:
        """The next piece comes, or the end of the answer."""
        self._timer = None
        answer = self._answer
        if answer is None:
            return
        try:
            piece = next(self._pieces, None)
            if piece:
                answer.on_bytes(piece)
            elif piece is None:
                self._stop(answer)
        except Exception as bug:  # noqa: BLE001 - as above
            self._fail(bug)
        self._go_on()

    def _stop(self, answer: Body) -> None:
        self._answer = None
        if self._ending is Ending.CUT:
            answer.broke("a cut is simulated")
        elif self._ending is not Ending.SILENCE:
            answer.whole()

    def _end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        if self._leave():
            self._sink.end(happened, error)

    def _fail(self, bug: Exception) -> None:
        self._end(LifecycleEvent.BUG, broken_by(bug))

    def _leave(self) -> bool:
        """Stop whatever is going on; whether this was the end."""
        if self._over:
            return False
        self._over = True
        self._answer = None
        self._work.drop()
        self._stop_timer()
        self._simulator.over(self)
        return True

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
