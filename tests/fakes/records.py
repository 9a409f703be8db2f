"""A StreamRecord of an ordinary exchange, to be changed in what a test is about."""

from typing import Any

from edge.policy.lifecycle import Outcome
from edge.telemetry.record import StreamRecord

_ORDINARY = {
    "request_id": "req_1",
    "stream_id": "st_1",
    "surface": "chat",
    "model": "m",
    "upstream": "local",
    "principal": "anonymous",
    "client": "192.0.2.1",
    "streaming": True,
    "status": 200,
    "outcome": Outcome.COMPLETE,
    "reader": "finished",
    "error": None,
    "attempts": 1,
    "queued_s": 0.0,
    "connecting_s": 0.0012345678,
    "upstream_s": 1.5,
    "client_blocked_s": 0.5,
    "edge_s": 0.0000004,
    "total_s": 2.0012349678,
    "ttft_s": 0.25,
    "itl_p50_s": 0.01,
    "itl_p99_s": 0.02,
    "itl_max_s": 0.03,
    "tokens_in": 7,
    "tokens_out": 3,
    "tokens_cached": None,
    "tokens_from": "reported",
    "tokens_per_s": 2.3456789,
    "events": 6,
    "bytes_out": 999,
    "peak_buffer_bytes": 512,
    "heartbeats": 0,
    "stalls": 0,
    "load_s": None,
    "prompt_s": None,
    "output_s": None,
    "output_tokens_per_s": None,
    "truncated": False,
    "dropped": None,
    "changed": None,
    "unknown_finish": None,
    "pauses": 0,
    "http10": False,
    "session": None,
    "reconnections": 0,
}


def make_record(**changes: Any) -> StreamRecord:
    return StreamRecord(**{**_ORDINARY, **changes})
