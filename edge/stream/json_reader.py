"""A reader that waits for the end of a generation and sends one JSON answer, for a client that asked for no stream.

In: the journal; the codec collects the answer, since it decodes the events anyway. Out: the answer or the error as one
HTTP response. Must not: commit before the end, because such a client learns of a failure only from the status.
"""

from collections.abc import Callable, Mapping

import orjson
from aiohttp import web
from typing_extensions import override

from edge.errors import AnswerTooLarge, EdgeError, InternalError, UpstreamBroken
from edge.policy.lifecycle import Outcome
from edge.protocol.json_text import dumps
from edge.settings import Stream as StreamSettings
from edge.stream.generation import Generation
from edge.stream.reader import BaseReader
from edge.stream.writer import Writer
from edge.upstream.ports import JSON_TYPE


class JsonReader(BaseReader):
    """A reader that sends one JSON answer; see the module.

    Args:
        headers: Makes the response headers; called at the commit.
    """

    __slots__ = ("_generation", "_headers")

    wants_events = False

    def __init__(
        self,
        generation: Generation,
        writer: Writer,
        settings: StreamSettings,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__(generation, writer, settings, clock, changed)
        self._generation = generation
        self._headers = headers

    async def run(self) -> web.StreamResponse:
        """Wait for the end, then answer.

        Raises:
            EdgeError: the generation failed; the caller answers with it.
        """
        try:
            while self._generation.outcome is None:
                await self._sleep()
            body = self._body()
            kind = JSON_TYPE if self._generation.whole is None else self._generation.whole_type
            return await self._answer({**self._headers(), "Content-Type": kind}, body)
        finally:
            self.leave()

    @override
    def push(self) -> None:
        """Called only for what came while another reader was attached."""
        generation = self._generation
        data = generation.journal.read(self.position, generation.journal.end)
        if data:
            self.write(data)
            generation.advanced()

    def write(self, data: bytes) -> bool:
        """Count the bytes and drop them: the codec has the answer, so this reader never lags."""
        generation = self._generation
        self.position += len(data)
        if self.position > self._settings.max_answer_bytes:
            limit = self._settings.max_answer_bytes
            generation.break_off(AnswerTooLarge(f"the answer is over stream.max_answer_bytes ({limit})"))
        return True

    def _body(self) -> bytes:
        try:
            return self._whole()
        except EdgeError as error:
            self._refuse(error)
            raise
        except Exception:
            self._refuse(InternalError("the answer could not be made"))
            raise

    def _whole(self) -> bytes:
        generation = self._generation
        if generation.outcome is not Outcome.COMPLETE and not generation.terminated:
            raise generation.error or InternalError(f"the answer ended as {generation.outcome}")
        if generation.whole is not None:
            return generation.whole
        try:
            return dumps({} if generation.codec is None else generation.codec.answer())
        except orjson.JSONEncodeError:
            raise UpstreamBroken("the answer is nested too deep to be written as JSON") from None
