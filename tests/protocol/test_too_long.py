"""The words by which servers say that a prompt is too long, and what is no such thing."""

import pytest

from edge.errors import TooLong
from edge.protocol.too_long import too_long

BY = TooLong(5065, 2048)


@pytest.mark.parametrize(
    "text",
    [
        (
            "This model's maximum context length is 2048 tokens. However, you requested 5165 tokens (5065 in the "
            "messages, 100 in the completion). Please reduce the length of the messages or completion."
        ),
        (
            "This model's maximum context length is 2048 tokens. However, your prompt contains at least 5065 "
            "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
            "the input prompt."
        ),
        (
            "The decoder prompt (length 5065) is longer than the maximum model length of 2048. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens."
        ),
        "request (5065 tokens) exceeds the available context size (2048 tokens), try increasing it",
        (
            "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: "
            "5065>= n_ctx: 2048). Try to load the model with a larger context length, or provide a shorter input."
        ),
        "Cannot truncate prompt with n_keep (5065) >= n_ctx (2048)",
        (
            "Trying to keep the first 5065 tokens when context the overflows. However, the model is loaded with "
            "context length of only 2048 tokens, which is not enough."
        ),
        "prompt is too long: 5065 tokens > 2048 maximum",
        "The input (5065 tokens) is longer than the model's context length (2048 tokens).",
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 5065 `inputs` "
            "tokens and 20 `max_new_tokens`"
        ),
        "Input validation error: `inputs` must have less than 2048 tokens. Given: 5065",
        "The input token count (5065) exceeds the maximum number of tokens allowed (2048).",
        "Prompt contains 5065 tokens and 0 draft tokens, too large for model with 2048 maximum context length",
        "This model's maximum prompt length is 2048 but the request contains 5065 tokens.",
    ],
)
def test_by_how_much(text: str) -> None:
    assert too_long({"message": text}, text) == BY


@pytest.mark.parametrize(
    "text",
    [
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        (
            "The number of tokens to keep from the initial prompt is greater than the context length. Try to "
            "load the model with a larger context length, or provide a shorter input"
        ),
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ],
)
def test_nobody_knows_by_how_much(text: str) -> None:
    assert too_long({"message": text}, text) == TooLong(None, None)


@pytest.mark.parametrize(
    "text",
    [
        (
            "This model's maximum context length is 2048 tokens. However, you requested 2148 tokens (48 in the "
            "messages, 2100 in the completion). Please reduce the length of the messages or completion."
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 48 `inputs` "
            "tokens and 2100 `max_new_tokens`"
        ),
        "max_tokens must be at least 1",
        "the context is not a list",
    ],
)
def test_an_answer_asked_to_be_too_long_is_no_prompt_that_is(text: str) -> None:
    assert too_long({"message": text}, text) is None
