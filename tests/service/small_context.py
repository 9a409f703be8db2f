"""A fake model server whose context is small: it refuses what is longer, in the words of real servers.

In: requests of every surface. Out: a refusal, or an answer. Must not: cut a prompt.
"""

from dataclasses import dataclass, field

import orjson
from fakes import ollama
from fakes.answers import DONE, Json, chat_finish, chat_role, chat_token, chat_usage, messages_events, responses_events
from fakes.model_server import Request
from fakes.steps import Step, json_answer, stream_answer

LONG = "word " * 4000
_PROMPT = ("system", "instructions", "messages", "input")


def llama_cpp(tokens: int, maximum: int) -> Json:
    return {"error": _runners(tokens, maximum)}


def ollamas(tokens: int, maximum: int) -> Json:
    """With ``"truncate": false``: its runner's error as text."""
    return {"error": orjson.dumps({"error": _runners(tokens, maximum)}).decode()}


def vllm(tokens: int, maximum: int) -> Json:
    message = (
        f"This model's maximum context length is {maximum} tokens. However, you requested {tokens + 100} tokens "
        f"({tokens} in the messages, 100 in the completion). Please reduce the length of the messages or completion."
    )
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}


def _runners(tokens: int, maximum: int) -> Json:
    said = f"request ({tokens} tokens) exceeds the available context size ({maximum} tokens), try increasing it"
    return {
        "code": 400,
        "message": said,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": maximum,
    }


def lm_studio(tokens: int, maximum: int) -> Json:
    message = (
        "The number of tokens to keep from the initial prompt is greater than the context length "
        f"(n_keep: {tokens}>= n_ctx: {maximum}). Try to load the model with a larger context length, or provide a "
        "shorter input."
    )
    return {"error": message}


WORDS = {"llama.cpp": llama_cpp, "ollama": ollamas, "vllm": vllm, "lm-studio": lm_studio}


@dataclass
class SmallContext:
    """What a ``FakeModel`` answers.

    Attributes:
        words: Of which server.
        maximum: Tokens that a prompt may have.
        says: The answer to each prompt that fits.
        seen: The tokens of each prompt, and whether it fit.
    """

    words: str
    maximum: int = 1_000_000
    says: str = LONG
    seen: list[tuple[int, bool]] = field(default_factory=list)

    def __call__(self, request: Request) -> list[Step]:
        asked = request.json
        tokens = len(orjson.dumps([asked.get(name) for name in _PROMPT])) // 4
        self.seen.append((tokens, tokens <= self.maximum))
        if tokens > self.maximum:
            return json_answer(WORDS[self.words](tokens, self.maximum), 400)
        match request.path.partition("?")[0]:
            case "/v1/messages":
                return self._with_an_id(messages_events([self.says], tokens))
            case "/v1/responses":
                return self._with_an_id(responses_events([self.says], tokens))
            case "/api/chat":
                last = ollama.last(prompt_eval_count=tokens)
                return ollama.ollama_answer([ollama.token(self.says), last])
        return stream_answer([chat_role(), chat_token(self.says), chat_finish(), chat_usage(tokens), DONE])

    def _with_an_id(self, events: list[bytes]) -> list[Step]:
        """Claude Code takes answers with one id for one answer."""
        return stream_answer([event.replace(b"msg_fake", b"msg_%d" % len(self.seen)) for event in events])
