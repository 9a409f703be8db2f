"""Whether a server's error says that the prompt is too long for the model, and by how much.

In: the error's object and its text. Out: figures, as far as there are any. Must not: take an answer that was asked to
be too long (``max_tokens``) for a prompt that is.

Agents shorten their conversation and go on, if the error says so in the words of the API that they speak. Each server
has words of its own.
"""

import re
from collections.abc import Mapping
from typing import Any

from edge.errors import TooLong

_MAXIMUM = r"maximum context length is (?P<maximum>\d+) tokens.*?"
_FIGURES = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # vLLM and OpenAI; where the messages' own part is given, that counts, not what the answer would add to it
        _MAXIMUM + r"\((?P<tokens>\d+) in the (?:messages|prompt)",
        _MAXIMUM + r"(?:resulted in|has|contains|at least) (?P<tokens>\d+)\b(?! characters)",
        # llama.cpp, and Ollama by it
        r"request \((?P<tokens>\d+) tokens\) exceeds the available context size \((?P<maximum>\d+) tokens\)",
        # Anthropic
        r"prompt is too long: (?P<tokens>\d+) tokens > (?P<maximum>\d+)",
        # SGLang
        r"input \((?P<tokens>\d+) tokens\) is longer than the model's context length \((?P<maximum>\d+)",
        # older vLLM
        r"prompt \(length (?P<tokens>\d+)\) is longer than the maximum model length of (?P<maximum>\d+)",
        # LM Studio, by release
        r"n_keep:? \(?(?P<tokens>\d+)\)? ?>= ?n_ctx:? \(?(?P<maximum>\d+)",
        r"keep the first (?P<tokens>\d+) tokens .*? context length of only (?P<maximum>\d+) tokens",
        # TGI
        r"must be <= (?P<maximum>\d+)\. Given: (?P<tokens>\d+) `inputs` tokens",
        r"`inputs` must have less than (?P<maximum>\d+) tokens\. Given: (?P<tokens>\d+)",
        # Gemini
        r"input token count \((?P<tokens>\d+)\) exceeds the maximum number of tokens allowed \((?P<maximum>\d+)\)",
        # Mistral
        r"contains (?P<tokens>\d+) tokens .*? too large for model with (?P<maximum>\d+) maximum context length",
        # xAI
        r"maximum prompt length is (?P<maximum>\d+) but the request contains (?P<tokens>\d+) tokens",
    )
)
_BARE = re.compile(
    r"(?:input|prompt|request)\S* (?:length )?(?:exceeds|is longer than) (?:the |maximum |model's |available )*context"
    r"|prompt is too long"
    r"|tokens to keep from the initial prompt is greater than the context length"  # LM Studio
    r"|maximum context length is \d+ tokens.*contains (?:at least )?\d+ characters",  # vLLM, before it counts tokens
    re.IGNORECASE | re.DOTALL,
)
_CODE = "context_length_exceeded"


def too_long(said: object, text: str) -> TooLong | None:
    """By how much the prompt is too long; None if that is not what the error says.

    Args:
        said: The error's object, or its text.
        text: What it says.
    """
    fields: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    tokens, maximum = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    if isinstance(tokens, int) and isinstance(maximum, int):
        return TooLong(tokens, maximum)
    for pattern in _FIGURES:
        if found := pattern.search(text):
            tokens, maximum = int(found["tokens"]), int(found["maximum"])
            return TooLong(tokens, maximum) if tokens >= maximum else None
    return TooLong(None, None) if fields.get("code") == _CODE or _BARE.search(text) else None
