"""What a relayed token passes, and what there is of each stream, has slots: a dict each would be 1.5 KB a stream."""

import pytest

from edge.protocol.chat.codec import ChatCodec
from edge.protocol.chat.transcription import TranscriptCodec
from edge.protocol.messages.codec import MessagesCodec
from edge.protocol.ollama.codec import OllamaCodec
from edge.protocol.responses.codec import ResponsesCodec
from edge.protocol.template import EventTemplate
from edge.protocol.transcode import Transcoder
from edge.stream.attempt import Attempt
from edge.stream.channel import Channel
from edge.stream.generation import Generation
from edge.stream.journal import Journal
from edge.stream.json_reader import JsonReader
from edge.stream.stream_or_json_reader import StreamOrJsonReader
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer
from edge.telemetry.timeline import Gaps
from edge.upstream.ports import Sink, Source
from edge.upstream.relay.bodies import Events
from edge.upstream.relay.connection import Connection
from edge.upstream.relay.relay import RelaySource

OF_A_STREAM = [
    *(Attempt, Channel, Generation, Journal, Gaps, Subscriber, JsonReader, StreamOrJsonReader, Writer),
    *(Connection, RelaySource, Events, EventTemplate),
    *(ChatCodec, TranscriptCodec, MessagesCodec, OllamaCodec, ResponsesCodec, Transcoder),
]


@pytest.mark.parametrize("one", [*OF_A_STREAM, Sink, Source], ids=lambda one: one.__name__)
def test_it_has_no_dict(one: type) -> None:
    assert one.__dictoffset__ == 0, [base.__name__ for base in one.__mro__ if "__slots__" not in vars(base)]
