"""A reader for an upload, whose form may ask for a stream only at its end: the upstream's answer shows which it is.

In: the journal, or the answer in one body. Out: a stream, or one response. Must not: commit before it is known which.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from edge.policy.lifecycle import Outcome
from edge.settings import Stream as StreamSettings
from edge.stream.generation import Generation
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer


class StreamOrJsonReader(Subscriber):
    """A reader that streams if the upstream does, and else sends one response.

    Args:
        headers: Makes the headers of a stream; called at the commit.
        whole_headers: Makes the headers of an answer in one body; called at the commit.
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
        """Wait however long it takes: the headers that go out with the status say which kind of answer follows."""
        return self._generation.handed_over or self._generation.outcome is not None

    def tick(self, now: float) -> None:
        """Also notice that the client left while Edge reads nothing from it, because the upstream takes no more."""
        if self._writer.hung_up:
            self._writer.abort()
            self.leave()
        super().tick(now)
