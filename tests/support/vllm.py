"""A fake model server that is known as a vLLM, and recorded answers of a real one.

In: a ``FakeModel``. Out: it lists its models as vLLM does, and tells its figures. Must not: answer a POST.
"""

from pathlib import Path

import orjson
from fakes.model_server import FakeModel

from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES

_GOLDEN = Path(__file__).parents[1] / "golden" / "vllm"
ANSWERS = {
    CHAT: (_GOLDEN / "chat_plain.json").read_bytes(),
    COMPLETIONS: (_GOLDEN / "completions_without_usage.json").read_bytes(),
    MESSAGES: (_GOLDEN / "messages_plain.json").read_bytes(),
    RESPONSES: (_GOLDEN / "responses_plain.json").read_bytes(),
}


def as_vllm(fake: FakeModel, *models: str) -> FakeModel:
    """Known as one from its first look on."""
    cards = [{"id": name, "object": "model", "created": 1, "owned_by": "vllm"} for name in models or ("m",)]
    fake.get["/v1/models"] = (
        200,
        {"Content-Type": "application/json"},
        orjson.dumps({"object": "list", "data": cards}),
    )
    return fake


def at_work_on(fake: FakeModel, sequences: float) -> None:
    """What its figures say from now on."""
    text = f'vllm:num_requests_running{{engine="0",model_name="m"}} {sequences}\n'
    fake.get["/metrics"] = (200, {"Content-Type": "text/plain"}, text.encode())
