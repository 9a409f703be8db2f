"""Token counts in OpenAI's words, which several surfaces use.

In: usage objects, or counts. Out: counts, or usage objects. Must not: count.
"""

from typing import Any

from edge.protocol.batch import Usage, count_in


def usage_object(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object, as far as the upstream's figures go."""
    prompt, completion = usage.prompt or 0, usage.completion or 0
    fields: dict[str, object] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage.cached is not None:
        fields["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    if usage.reasoning is not None:
        fields["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return fields


def read_usage(usage: dict[str, Any]) -> Usage:
    """OpenAI's usage object, in the spelling of chat completions or of Responses."""
    prompt_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    return Usage(
        prompt=count_in(usage, "prompt_tokens", "input_tokens"),
        completion=count_in(usage, "completion_tokens", "output_tokens"),
        cached=count_in(prompt_details, "cached_tokens"),
        reasoning=count_in(output_details, "reasoning_tokens"),
    )
