from fakes.model_server import FakeModel, chat_answer
from support.raw import CHAT, ask, chat_body
from support.running import Serve


async def test_a_stream_is_relayed_and_recorded(serve: Serve, fake: FakeModel) -> None:
    fake.script(*chat_answer(["Hello", " world"]))
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.status == 200
    assert answer.clean
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert (await edge.record())["outcome"] == "complete"
