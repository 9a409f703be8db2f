"""What somebody at a terminal sees: one short line for each finished request, never wider than the terminal."""

import re

import pytest
from fakes.records import make_record

from edge.telemetry import log
from edge.telemetry.console import ConsoleRenderer

STAMP = "2026-12-01T09:08:07.123456Z"
COLOUR = re.compile("\x1b\\[[0-9;]*m")
WARNING = "a server wants a key that nobody has configured: name it in [[upstream]], with its api_key, and reload Edge"


def render(event: dict[str, object], columns: int = 100, *, colours: bool = False) -> str:
    line: dict[str, object] = {"timestamp": STAMP, "level": "info", **event}
    return ConsoleRenderer(lambda: columns, colours=colours)(None, "", line)


def exchange(**facts: object) -> dict[str, object]:
    return {"event": "exchange", **log.record_event(make_record(**facts))}


def test_a_finished_request_is_one_line_with_its_figures():
    line = render(
        exchange(
            model="qwen3:4b",
            ttft_s=0.214,
            tokens_per_s=48.06,
            total_s=6.5,
            upstream_s=6.0,
            queued_s=0.45,
            client_blocked_s=0.05,
        ),
        120,
    )
    for part in ("qwen3:4b", "chat", "0.21s TTFT", "48.1 tok/s", "complete", "6.50s: model 6.00s, queue 0.45s"):
        assert part in line
    assert "\n" not in line
    assert re.match(r"\d\d:\d\d:07 ", line)


def test_a_narrower_terminal_gets_the_largest_part_of_the_time_and_then_the_total_alone():
    event = exchange(total_s=6.5, upstream_s=6.0, queued_s=0.45, client_blocked_s=0.05)
    wide, narrow, narrowest = (render(dict(event), columns) for columns in (110, 98, 80))
    assert wide.endswith("6.50s: model 6.00s, queue 0.45s")
    assert narrow.endswith("6.50s: model 6.00s")
    assert narrowest.endswith("complete 6.50s")


def test_a_request_that_failed_says_how():
    line = render(exchange(outcome="upstream_cut", status=502, error="upstream_unreachable", ttft_s=None), 120)
    assert "502 upstream_cut upstream_unreachable" in line
    assert "TTFT" not in line


@pytest.mark.parametrize("columns", [40, 50, 60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("model", ["m", "a-very-long-model-name-with-an-organisation/" * 3, "模型" * 30, None])
def test_no_line_of_a_request_is_wider_than_the_terminal_and_the_outcome_stays(columns: int, model: str | None):
    facts = {"surface": "/v1/chat/completions/control", "outcome": "complete", "model": model}
    line = render(exchange(**facts), columns)
    wide = sum(2 if ord(character) > 0x2E80 else 1 for character in line)
    assert wide <= columns
    assert "complete" in line
    assert COLOUR.sub("", render(exchange(**facts), columns, colours=True)) == line


def test_warnings_are_whole_on_a_narrow_terminal():
    text = render({"event": "server not used", "level": "warning", "why": WARNING}, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert WARNING in " ".join(line.strip() for line in text.splitlines())


def test_information_is_cut_to_the_width():
    text = render({"event": "upstream found", "models": [f"model-{number}" for number in range(50)]}, 80)
    assert len(text) == 80
    assert text.endswith("…")


def test_a_traceback_is_whole():
    trace = "Traceback (most recent call last):\n  File x\nValueError: " + "y" * 200
    assert "y" * 200 in render({"event": "bug", "level": "error", "exception": trace}, 60)


def test_a_value_moves_no_cursor_and_shows_no_bearer_token():
    line = render({"event": "x\x1b[2J", "path": "/\x1b[31m\n", "why": "Bearer secret123"}, 120)
    assert "\x1b" not in line
    assert "secret123" not in line
    assert "\n" not in line


@pytest.mark.parametrize("event", ["start", "listening"])
def test_what_the_start_screen_or_the_last_line_says_is_left_out(event: str):
    assert render({"event": event, "model": "m"}) == ""


@pytest.mark.parametrize(("outcome", "colour"), [("complete", "32"), ("upstream_cut", "33"), ("internal_error", "31")])
def test_the_outcome_has_its_colour(outcome: str, colour: str):
    event = exchange(outcome=outcome)
    event["level"] = {"internal_error": "error", "upstream_cut": "warning"}.get(outcome, "info")
    assert f"\x1b[{colour}m{outcome}" in render(event, colours=True)
