import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from fakes.records import make_record

from edge.settings import Log
from edge.telemetry import log

NASTY = [
    "a\nb",
    "a\r\nb",
    "\x1b[2J\x1b[31mred",
    "\x00\x07\x7f",
    "\x9b31m\x85next",
    "line\u2028sep\u2029",
    "\udcff\ud800",
    'quote" outcome=complete',
    "back\\slash",
    "",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def configured(stream: io.StringIO, **settings: object) -> io.StringIO:
    log.configure(Log(**settings), stream)
    return stream


def lines(stream: io.StringIO) -> list[str]:
    text = stream.getvalue()
    assert text.endswith("\n")
    return text[:-1].split("\n")


def only(stream: io.StringIO) -> dict[str, object]:
    (line,) = lines(stream)
    return json.loads(line)


def test_a_json_line_says_when_how_grave_and_what():
    out = configured(io.StringIO())
    log.get_logger().warning("something", n=1)
    line = only(out)
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.tzinfo == UTC
    assert abs((datetime.now(UTC) - stamp).total_seconds()) < 60
    assert line == {"level": "warning", "event": "something", "n": 1}


def test_the_canonical_line_has_every_fact_that_is_known():
    out = configured(io.StringIO())
    log.emit(make_record())
    line = only(out)
    assert (line["event"], line["level"], line["outcome"], line["status"]) == ("exchange", "info", "complete", 200)
    assert (line["tokens_out"], line["heartbeats"], line["http10"]) == (3, 0, False)
    assert not {"error", "tokens_cached", "request_text"} & line.keys()
    assert list(line)[:3] == ["timestamp", "level", "event"]


def test_times_are_told_to_the_microsecond_and_still_add_up():
    event = log.record_event(make_record())
    parts = [event[f"{part}_s"] for part in ("queued", "connecting", "upstream", "client_blocked", "edge")]
    assert event["connecting_s"] == 0.001235
    assert sum(parts) == pytest.approx(event["total_s"], abs=5e-6)


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        *((outcome, "info") for outcome in ("complete", "client_gone", "client_stall", "shutdown", "rejected")),
        *((outcome, "warning") for outcome in ("upstream_error", "upstream_cut", "connect_timeout", "upstream_stall")),
        ("internal_error", "error"),
    ],
)
def test_upstream_failures_warn_and_bugs_are_errors(outcome, level):
    out = configured(io.StringIO())
    log.emit(make_record(outcome=outcome))
    assert only(out)["level"] == level


def test_start_and_progress_lines_name_the_exchange():
    who = {"request_id": "req_1", "stream_id": "st_1", "surface": "chat", "model": "m"}
    out = configured(io.StringIO())
    log.start(**who, upstream=None, principal="key-12345678", client="192.0.2.1")
    log.progress(**who, upstream="local", elapsed_s=30.00049, tokens=90, tokens_per_s=3.0001, buffer_bytes=0)
    start, progress = (json.loads(line) for line in lines(out))
    assert start.items() >= {**who, "event": "start", "level": "info", "principal": "key-12345678"}.items()
    assert "upstream" not in start
    told = {**who, "event": "progress", "elapsed_s": 30.0, "tokens": 90, "tokens_per_s": 3.0, "buffer_bytes": 0}
    assert progress.items() >= told.items()


def test_a_model_name_is_bounded():
    assert len(log.record_event(make_record(model="m" * 5000))["model"]) == log.MODEL_CHARS
    assert log.record_event(make_record(model="m" * 128))["model"] == "m" * 128


@pytest.mark.parametrize("form", ["json", "logfmt", "console"])
@pytest.mark.parametrize("text", NASTY)
def test_no_value_key_event_or_exception_text_can_break_a_line(form, text):
    out = configured(io.StringIO(), format=form)
    log.get_logger().info(text, model=text, nested={"path": [text]}, **{text: 1})
    (line,) = out.getvalue().splitlines()
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize("text", NASTY)
def test_json_keeps_values_as_they_were(text):
    out = configured(io.StringIO())
    log.get_logger().info("x", model=text)
    assert only(out)["model"] == text.encode(errors="replace").decode()


@pytest.mark.parametrize("value", [2**80, {1: 2}, {1, 2}, b"\xff", float("nan"), object()])
def test_no_kind_of_value_makes_logging_fail(value):
    out = configured(io.StringIO())
    log.get_logger().info("x", value=value, model="\udcff")
    assert only(out)["event"] == "x"


def test_key_value_pairs_cannot_be_forged():
    out = configured(io.StringIO(), format="logfmt")
    log.get_logger().info("two words", model="x outcome=complete", n=1, ok=True, upstream="local")
    (line,) = lines(out)
    assert line.endswith('info    two words model="x outcome=complete" n=1 ok=true upstream=local')


def fail() -> None:
    raise ValueError("bad\nthing\x1b[0m")


def log_a_bug() -> None:
    try:
        fail()
    except ValueError:
        log.get_logger().exception("bug")


def test_a_traceback_is_part_of_the_json_line():
    out = configured(io.StringIO())
    log_a_bug()
    assert only(out)["exception"].endswith("ValueError: bad\nthing\x1b[0m")


def test_a_traceback_in_logfmt_is_indented_so_that_it_cannot_look_like_a_record():
    out = configured(io.StringIO(), format="logfmt")
    log_a_bug()
    first, *trace = lines(out)
    assert first.endswith("error   bug")
    assert trace[-2:] == ["    ValueError: bad", "    thing\\u001b[0m"]
    assert all(line.startswith("    ") for line in trace)


@pytest.mark.parametrize(
    ("setting", "stream", "written"),
    [
        ("auto", io.StringIO, r'\{"timestamp":"[^"]+","level":"info","event":"x","n":1\}'),
        ("auto", Terminal, r"\d\d:\d\d:\d\d x  n: 1"),
        ("json", Terminal, r'\{"timestamp":"[^"]+","level":"info","event":"x","n":1\}'),
        ("logfmt", Terminal, r"20\S+Z info    x n=1"),
        ("console", io.StringIO, r"\d\d:\d\d:\d\d x  n: 1"),
    ],
)
def test_the_format_can_be_set(monkeypatch, setting, stream, written):
    monkeypatch.setenv("NO_COLOR", "1")
    out = configured(stream(), format=setting)
    log.get_logger().info("x", n=1)
    assert re.fullmatch(written, lines(out)[0])


@pytest.mark.parametrize(("variable", "value", "coloured"), [("TERM", "xterm", True), ("TERM", "dumb", False)])
def test_a_terminal_gets_colours_if_it_has_them(monkeypatch, variable, value, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, value)
    out = configured(Terminal())
    log.get_logger().warning("x")
    assert ("\x1b[" in out.getvalue()) is coloured


def test_a_request_that_is_left_out_of_the_console_writes_no_empty_line():
    out = configured(io.StringIO(), format="console")
    log.start(
        request_id="req_1", stream_id="st_1", surface="chat", model="m", upstream=None, principal="k", client=None
    )
    log.emit(make_record())
    assert len(lines(out)) == 1


def test_lines_below_the_level_are_not_written():
    out = configured(io.StringIO(), level="warning")
    log.emit(make_record())
    assert out.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "hush"},
        {"api_key": "hush"},
        {"headers": {"X-Api-Key": "hush", "Cookie": "hush"}},
        {"a": {"b": {"KEY": "hush"}}},
        {"error": "sent Authorization: Bearer hush and failed"},
    ],
)
def test_secrets_never_reach_a_line(stream, fields):
    out = configured(stream())
    log.get_logger().info("x", **fields)
    assert "hush" not in out.getvalue()
    assert "[redacted]" in out.getvalue()


def test_what_libraries_log_comes_in_the_same_lines_at_warning_and_above():
    out = configured(io.StringIO())
    library = logging.getLogger("aiohttp.server")
    library.info("not told")
    library.warning("odd %s", "request\n")
    try:
        fail()
    except ValueError:
        library.exception("Error handling request")
    library.log(35, "a level of its own")
    first, second, third = (json.loads(line) for line in lines(out))
    assert (first["event"], first["level"], first["logger"]) == ("odd request\n", "warning", "aiohttp.server")
    assert "ValueError" in second["exception"]
    assert third["level"] == "warning"


def test_a_logger_that_was_made_before_is_configured_too():
    early = log.get_logger()
    out = configured(io.StringIO())
    early.warning("told")
    assert only(out)["event"] == "told"


def test_configuring_again_does_not_double_lines():
    configured(io.StringIO())
    out = configured(io.StringIO())
    logging.getLogger("asyncio").warning("once")
    assert only(out)["event"] == "once"


def test_a_log_that_cannot_be_written_disturbs_nobody():
    configured(Broken())
    log.emit(make_record())
    closed = configured(io.StringIO())
    closed.close()
    log.emit(make_record())


def test_logging_loads_no_rich():
    code = "import sys, edge.telemetry.log; sys.exit(any(name.split('.')[0] == 'rich' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


def test_rich_can_still_be_imported_afterwards():
    code = "import edge.telemetry.log, rich.console"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code
