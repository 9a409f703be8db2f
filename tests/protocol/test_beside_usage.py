"""What a server tells in the usage event, which only Edge asked for: it reaches the client in the event before it.

The bytes are vLLM 0.32's, whose last event has the fingerprint where no usage is asked for.
"""

from typing import Any

import orjson
import pytest

from edge.protocol.batch import Batch
from edge.protocol.dialect import BadStream
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface

HEAD = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
TEXT = HEAD + b'[{"index":0,"delta":{"content":" ones"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
LAST = (
    HEAD + b'[{"index":0,"delta":{"content":" ESS"},"logprobs":null,"finish_reason":"length","stop_reason":null,'
    b'"token_ids":null}]}\n\n'
)
USAGE = (
    HEAD + b'[],"usage":{"prompt_tokens":15,"total_tokens":17,"completion_tokens":2},"system_fingerprint":"vllm-1"}\n\n'
)
DONE = b"data: [DONE]\n\n"
STAMPED = LAST.removesuffix(b"}\n\n") + b',"system_fingerprint":"vllm-1"}\n\n'
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}


def codec(surface: Surface = Surface.CHAT, **more: Any) -> Any:
    said = {"messages": []} if surface is Surface.CHAT else {"prompt": "x"}
    prepared = prepare(surface, orjson.dumps({"model": "m", "stream": True, **said, **more}))
    return DIALECTS[surface].codec(prepared, 2**20, frozenset())


def fed(reader: Any, *reads: bytes) -> tuple[bytes, int]:
    """All that goes out for these reads, and the end of the body; how many tokens it has."""
    batches: list[Batch] = [reader.feed(read) for read in reads]
    batches.append(reader.eof())
    return b"".join(batch.data for batch in batches), sum(batch.tokens for batch in batches)


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_the_fingerprint_is_in_the_last_event_as_if_no_usage_had_been_asked_for(size: int) -> None:
    stream = TEXT * 3 + LAST + USAGE + DONE
    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
    reader = codec()
    assert fed(reader, *reads) == (TEXT * 3 + STAMPED + DONE, 4)
    assert reader.usage.completion == 2


def test_who_asked_for_usage_gets_all_events_as_they_came() -> None:
    assert fed(codec(**ASKED), TEXT, LAST, USAGE, DONE)[0] == TEXT + LAST + USAGE + DONE


def test_completions_likewise() -> None:
    text = LAST.replace(b'"delta":{"content":" ESS"}', b'"text":" ESS"')
    assert fed(codec(Surface.COMPLETIONS), text, USAGE, DONE)[0].startswith(text.removesuffix(b"}\n\n") + b',"system_f')


@pytest.mark.parametrize("rest", [(), (DONE,), (TEXT,), (LAST, DONE)], ids=["end", "done", "text", "twice"])
def test_where_no_usage_follows_the_last_event_goes_out_as_it_came(rest: tuple[bytes, ...]) -> None:
    sent, tokens = fed(codec(), TEXT, LAST, *rest)
    assert sent == TEXT + LAST + b"".join(rest)
    assert tokens == sent.count(b'"content"')


def test_a_last_event_without_its_blank_line_is_not_lost() -> None:
    assert fed(codec(), TEXT, LAST.rstrip())[0].rstrip() == (TEXT + LAST).rstrip()


def test_what_is_null_or_known_already_is_not_told_again() -> None:
    usage = USAGE.replace(b'"vllm-1"}', b'null,"service_tier":null,"created":9}')
    assert fed(codec(), LAST, usage, DONE)[0] == LAST + DONE


def test_of_several_choices_the_last_to_end_has_it() -> None:
    other = LAST.replace(b'"index":0', b'"index":1')
    assert fed(codec(n=2), LAST, other, USAGE, DONE)[0] == LAST + STAMPED.replace(b'"index":0', b'"index":1') + DONE


@pytest.mark.parametrize("bad", [b'data: {"error":{"message":"no"}}\n\n', b"data: {\n\n"], ids=["error", "malformed"])
def test_an_error_comes_after_it(bad: bytes) -> None:
    reader = codec()
    assert reader.feed(LAST).data == b""
    try:
        sent = reader.feed(bad).data
    except BadStream as error:
        sent = error.before.data
    assert sent.startswith(LAST)
