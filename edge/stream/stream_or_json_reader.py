"""A reader for a request that does not say early enough whether a stream is wanted: what the upstream does decides.

In: the journal, or the answer in one piece. Out: one or the other. Must not: commit before it is known which.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from edge.policy.lifecycle import Outcome
from edge.settings import Stream as StreamSettings
from edge.stream.generation import Generation
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer


class StreamOrJsonReader(Subscriber):
    """See the module.

    Args:
        headers: Called at the commit of a stream.
        whole_headers: Called at the commit of an answer in one piece.
    """

    __slots__ = ("_generation", "_whole_headers")

    def __init__(
        self,
        generation: Generation,
        writer: Writer,
        settings: StreamSettings,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        headers: Callable[[], Mapping[str, str]],
        whole_headers: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__(generation, writer, settings, clock, changed, headers=headers)
        self._generation = generation
        self._whole_headers = whole_headers

    async def _run(self) -> web.StreamResponse:
        generation = self._generation
        while not self._decided():
            await self._woken()
        if generation.outcome is Outcome.COMPLETE and generation.whole is not None:
            headers = {**self._whole_headers(), "Content-Type": generation.whole_type}
            return await self._answer(headers, generation.whole)
        return await super()._run()

    def _decided(self) -> bool:
        """Whatever the time: a status that is sent early says what kind of answer follows."""
        return self._generation.handed_over or self._generation.outcome is not None

    def tick(self, now: float) -> None:
        """Also notice a client that left while Edge does not read, since the upstream takes no more of its body."""
        if self._writer.hung_up:
            self._writer.abort()
            self.leave()
        super().tick(now)
