"""An Ollama keeps the promises of an upstream: as itself, and translated for a client of chat completions."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import orjson
import pytest
from contract.recorder import Recorder
from contract.upstream_contract import MOST_ANSWER_BYTES, Opened, UpstreamContract
from fakes import ollama
from fakes.model_server import FakeModel, chunk, end, json_answer

from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.canonical import Target
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import transcoder, translate
from edge.protocol.transcode_ports import Answering
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.pool import Pool
from edge.upstream.ports import Call, Upstream
from edge.upstream.relay.relay import Relay


class TestOllama(UpstreamContract):
    head = staticmethod(ollama.lines_head)
    token = ollama.token("tok")
    events = (ollama.token("tok"), ollama.token("tok"), ollama.last())
    finish = ollama.token("tok") + ollama.last()
    error_event = ollama.error()

    def call(self, *, streamed: bool = True) -> Call:
        surface = Surface.OLLAMA_CHAT if streamed else Surface.OLLAMA_EMBED
        prepared = prepare(surface, orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}))
        codec = DIALECTS[surface].codec(prepared, 100_000, frozenset()) if streamed else None
        return Call(surface, prepared.body, codec, {"x-request-id": "r"}, MOST_ANSWER_BYTES, takes_body=True)

    @pytest.fixture
    async def opened(self, fake: FakeModel) -> AsyncIterator[Opened]:
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                pool = Pool(UpstreamSettings(name="up", url=url))
                relay = Relay(pool, "up")
                stack.push_async_callback(pool.close)
                stack.push_async_callback(relay.close)
                return relay

            yield make

    async def test_a_queue_that_is_full_may_be_tried_elsewhere(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        fake.script(*json_answer({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503))
        opened(fake.url).open(self.call(), sink)
        await self._ended(sink, LifecycleEvent.ERROR)
        assert sink.error is not None
        assert (sink.error.status, sink.error.retryable) == (503, True)
        assert sink.error.message.startswith("server busy")

    async def test_what_it_measured_is_kept(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        fake.script(self.head(), *map(chunk, self.events), end())
        call = self.call()
        opened(fake.url).open(call, sink)
        await sink.until_call("end")
        assert call.codec is not None
        assert call.codec.usage is not None
        assert (call.codec.usage.prompt, call.codec.usage.completion) == (7, 3)
        measured = call.codec.measured
        assert measured is not None
        assert (measured.load_s, measured.prompt_s, measured.output_s) == (1.5, 0.5, 2.0)


class TestTranslated(TestOllama):
    """The same lines, as a client of chat completions gets them."""

    def call(self, *, streamed: bool = True) -> Call:
        if not streamed:
            return super().call(streamed=False)
        prepared = prepare(
            Surface.CHAT, orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
        )
        target = Target(Surface.OLLAMA_CHAT, "up")
        source = DIALECTS[Surface.OLLAMA_CHAT].codec(prepared, 100_000, frozenset())
        codec = transcoder(source, Surface.OLLAMA_CHAT, Answering(prepared, "0" * 32, 1))
        body = translate(prepared, target).body
        return Call(Surface.OLLAMA_CHAT, body, codec, {"x-request-id": "r"}, MOST_ANSWER_BYTES, takes_body=True)
