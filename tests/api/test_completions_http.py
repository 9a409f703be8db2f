"""Legacy completions in front of an Ollama, and where there is nobody who could continue a prompt."""

import pytest
from fakes.model_server import FakeModel, chunk, fin, head, json_answer
from support.ollama import NDJSON, generate_lines, lines_answer, pass_for_ollama
from support.raw import COMPLETIONS, ask
from support.running import Serve

ASKED = {"model": "llama3:8b", "prompt": "Once"}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_ollama_continues_a_prompt(serve: Serve, fake: FakeModel, *, stream: bool) -> None:
    pass_for_ollama(fake)
    fake.script(*lines_answer(generate_lines()), path="/api/generate")
    edge = await serve()
    answer = await ask(edge.port, COMPLETIONS, {**ASKED, "stream": stream, "max_tokens": 3})
    assert answer.status == 200
    if stream:
        assert answer.body.count(b'"text":') == 4
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        assert answer.json["choices"][0]["text"] == "Hello there"
        assert answer.json["usage"]["total_tokens"] == 10
    sent = fake.requests[0].json
    assert (sent["prompt"], sent["raw"], sent["options"]) == ("Once", True, {"num_predict": 3})
    assert (await edge.record())["tokens_out"] == 3


async def test_its_refusal_is_told_in_openais_shape(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    fake.script(*json_answer({"error": "model requires more system memory"}, 500))
    answer = await ask((await serve()).port, COMPLETIONS, ASKED)
    assert answer.status == 500
    assert answer.json["error"]["message"] == "model requires more system memory"


async def test_its_end_in_the_middle_is_no_end(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    fake.script(head(200, NDJSON), chunk(generate_lines()[0]), fin())
    answer = await ask((await serve()).port, COMPLETIONS, {**ASKED, "stream": True})
    assert b'"error"' in answer.body
    assert b"[DONE]" not in answer.body
    assert not answer.clean


async def test_who_only_speaks_messages_does_not_continue_prompts(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"surfaces": ["messages"]})
    answer = await ask(edge.port, COMPLETIONS, {"model": "m", "prompt": "Once"})
    assert answer.status == 501
    assert answer.json["error"]["code"] == "surface_not_supported"
    assert fake.requests == []
