"""A slot that was cut off is free when the server has stopped, whatever else of ours and of others runs there."""

import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, COMPLETIONS, chat_body
from support.running import Serve
from support.slots import Clients, held, until_taken
from support.vllm import as_vllm, at_work_on

FOUR = [(CHAT, chat_body(n=4)), (COMPLETIONS, {"model": "m", "prompt": ["a", "b"], "n": 2, "stream": True})]


@pytest.mark.parametrize(("path", "body"), FOUR, ids=["n", "prompts"])
async def test_a_request_with_several_sequences_does_not_hold_anothers_slot(
    serve: Serve, fake: FakeModel, path: str, body: dict[str, object]
) -> None:
    fake.script(*held("four"))
    fake.script(*held("one"))
    at_work_on(as_vllm(fake), 4 + 1)
    edge = await serve(fake.url, upstream={"max_concurrency": 2})
    async with Clients(edge) as clients:
        await clients.ask(path, body)
        one = await clients.ask()
        await fake.reached("one")
        one.close()
        await until_taken(edge, 1, 1, 0)
        at_work_on(fake, 4)
        await until_taken(edge, 1, 0, 0)


async def test_what_others_ask_of_the_server_does_not_hold_it(serve: Serve, fake: FakeModel) -> None:
    fake.script(*held("one"))
    at_work_on(as_vllm(fake), 1 + 7)
    edge = await serve(fake.url, upstream={"max_concurrency": 1})
    async with Clients(edge) as clients:
        one = await clients.ask()
        await fake.reached("one")
        one.close()
        await until_taken(edge, 0, 1, 0)
        await edge.wait(lambda: any(request.path == "/metrics" for request in fake.gets))
        at_work_on(fake, 7)
        await until_taken(edge, 0, 0, 0)
