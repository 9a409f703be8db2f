"""Log lines: one for each event, and one canonical line for each exchange.

In: the log settings, once; then records, helpers' calls, and whatever libraries log through ``logging``.
Out: one line each, as JSON, as key=value or for a terminal (see ``rendering``, ``console``). Must not: raise into the
caller, hold a key, or be bypassed: this module alone imports structlog, since importing it plainly loads rich (5 MB,
50 ms).
"""

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from typing import Any, Literal, TextIO

from edge.policy.lifecycle import Outcome
from edge.settings import Log
from edge.telemetry.console import console_renderer
from edge.telemetry.line_writer import LineWriter, writer_for
from edge.telemetry.record import ReturnRecord, StreamRecord, TransferRecord
from edge.telemetry.refusals import Refusals
from edge.telemetry.rendering import as_json, as_logfmt

_rich = "rich" in sys.modules
if not _rich:
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes the import fail, and structlog do without
try:
    import structlog
    from structlog.processors import TimeStamper, add_log_level, format_exc_info
    from structlog.typing import EventDict, FilteringBoundLogger, Processor
finally:
    if not _rich:
        del sys.modules["rich"]

MODEL_CHARS = 128  # a model name is whatever a client wrote
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_OUTCOME_LEVELS = {
    Outcome.UPSTREAM_ERROR: logging.WARNING,
    Outcome.UPSTREAM_CUT: logging.WARNING,
    Outcome.UPSTREAM_STALL: logging.WARNING,
    Outcome.CONNECT_TIMEOUT: logging.WARNING,
    Outcome.FIRST_TOKEN_TIMEOUT: logging.WARNING,
    Outcome.TOTAL_TIMEOUT: logging.WARNING,
    Outcome.INTERNAL_ERROR: logging.ERROR,
}

_SECRET_NAMES = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "x_api_key",
        "api_key",
        "key",
        "keys",
        "password",
        "cookie",
        "set_cookie",
        "ticket",
        "token",
    }
)
# Their fields are all named in here, or in a record, and none is a secret.
_OWN = frozenset({"exchange", "start", "progress", "returned", "management"})
_FIELDS = tuple(field.name for field in fields(StreamRecord))
_values = attrgetter(*_FIELDS)


def form(settings: Log, stream: TextIO | None) -> Literal["json", "logfmt", "console"]:
    """How lines are written to this stream, with ``auto`` decided."""
    if settings.format != "auto":
        return settings.format
    return "console" if stream is not None and stream.isatty() else "json"


def configure(settings: Log, stream: TextIO | None = None, *, starting: bool = False) -> None:
    """Send all log lines to ``stream``, and what libraries log at warning or above as well.

    Args:
        settings: How, and from which level on.
        stream: Without one they go to stderr, in the background: whoever reads them may stop, which must not stop Edge.
        starting: A start screen will follow on a terminal, so lines that say the same are left out there.
    """
    write_counts()
    out = sys.stderr if stream is None else stream
    renderers: Mapping[str, Processor] = {
        "json": as_json,
        "logfmt": as_logfmt,
        "console": console_renderer(out, starting=starting),
    }
    lines = _Lines(out) if stream is not None else _to_stderr(out)
    structlog.configure(
        processors=[
            add_log_level,
            TimeStamper(fmt="iso", utc=True),
            format_exc_info,
            redact,
            renderers[form(settings, out)],
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    _bound_logger.cache_clear()
    _refusals.cache_clear()
    root = logging.getLogger()
    forward = _Forward(logging.WARNING)
    root.handlers = [*(handler for handler in root.handlers if not isinstance(handler, _Forward)), forward]
    root.setLevel(logging.WARNING)


def write(text: str) -> None:
    """Write text for somebody at the terminal to stderr, among the lines, as it is."""
    _to_stderr(sys.stderr).msg(text)


def write_out(within_s: float) -> None:
    """Wait until what was logged has been written, for at most so long."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            writer_for(sys.stderr.fileno()).close(within_s)


def get_logger() -> FilteringBoundLogger:
    """A logger; it may be made before ``configure`` and follows it."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


@cache
def _bound_logger() -> FilteringBoundLogger:
    """The logger of the lines of exchanges: bound once for each configuration, which saves 4 µs a line."""
    return get_logger().bind()


def emit(record: StreamRecord) -> None:
    """The canonical line of an exchange."""
    level = _OUTCOME_LEVELS.get(Outcome(record.outcome), logging.INFO)
    _bound_logger().log(level, "exchange", **record_event(record))


def record_event(record: StreamRecord) -> dict[str, object]:
    """A record's fields as they are logged: without those that are None, times to the microsecond."""
    values = zip(_FIELDS, _values(record), strict=True)
    event = {name: round(value, 6) if type(value) is float else value for name, value in values if value is not None}
    if record.model is not None:
        event["model"] = _bounded(record.model)
    return event


def emit_return(record: ReturnRecord) -> None:
    """The line of a reader that came back to a stream, and has gone."""
    event = {name: round(value, 6) if type(value) is float else value for name, value in asdict(record).items()}
    event["model"] = _bounded(record.model)
    _bound_logger().info("returned", **_given(**event))


def emit_transfer(record: TransferRecord) -> None:
    """The line of a request that changed an upstream's models, or was to."""
    event = {name: round(value, 6) if type(value) is float else value for name, value in asdict(record).items()}
    event["model"] = _bounded(record.model)
    level = _OUTCOME_LEVELS.get(Outcome(record.outcome), logging.INFO)
    _bound_logger().log(level, "management", **_given(**event))


def start(
    *,
    request_id: str,
    stream_id: str,
    surface: str,
    model: str | None,
    upstream: str | None,
    principal: str,
    client: str | None,
) -> None:
    """An exchange was accepted."""
    _bound_logger().info(
        "start",
        **_given(
            request_id=request_id,
            stream_id=stream_id,
            surface=surface,
            model=_bounded(model),
            upstream=upstream,
            principal=principal,
            client=client,
        ),
    )


def refused(*, client: str | None, error: str | None, **facts: object) -> bool:
    """A request was refused before it became an exchange, by whatever part of Edge.

    After the first ten in a minute for an address and a reason, one line a minute has the count of the others.

    Args:
        client: Its address, as far as it is known.
        error: The reason, as a code out of a closed list.
        **facts: What else is known; nothing of what the client sent that may be a credential.

    Returns:
        Whether it got a line of its own: what explains it further is worth one too.
    """
    shown = _refusals().admit(client, error)
    if shown:
        _bound_logger().info("refused", **_given(client=client, error=error, **facts))
    return shown


def write_counts() -> None:
    """Write the counts of refusals that had no line, before their minute is over: Edge stops, or the log changes."""
    _refusals().flush()


@cache
def _refusals() -> Refusals:
    """This configuration's."""
    return Refusals(
        lambda client, error, more: _bound_logger().info("refused", **_given(client=client, error=error, more=more))
    )


def progress(
    *,
    request_id: str,
    stream_id: str,
    surface: str,
    model: str | None,
    upstream: str | None,
    elapsed_s: float,
    tokens: int,
    tokens_per_s: float | None,
    buffer_bytes: int,
) -> None:
    """An exchange has been running for another while."""
    get_logger().info(
        "progress",
        **_given(
            request_id=request_id,
            stream_id=stream_id,
            surface=surface,
            model=_bounded(model),
            upstream=upstream,
            elapsed_s=round(elapsed_s, 3),
            tokens=tokens,
            tokens_per_s=None if tokens_per_s is None else round(tokens_per_s, 2),
            buffer_bytes=buffer_bytes,
        ),
    )


def redact(_: object, __: str, event: EventDict) -> EventDict:
    """Replace the values of names that hold secrets, at any depth (a structlog processor)."""
    return event if event["event"] in _OWN else _without_secrets(event)


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: "[redacted]"
        if str(name).lower().replace("-", "_") in _SECRET_NAMES
        else _without_secrets(value)
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _bounded(model: str | None) -> str | None:
    return model if model is None or len(model) <= MODEL_CHARS else model[: MODEL_CHARS - 1] + "…"


class _Lines:
    """Where structlog writes to: a stream, or nothing. One that cannot be written must not end a stream of tokens."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        if self._stream is not None and line:
            with suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()

    log = debug = info = warning = error = critical = exception = msg


class _Background:
    """Where structlog writes to: a descriptor, without waiting for whoever reads it."""

    def __init__(self, writer: LineWriter) -> None:
        self._put = writer.put

    def msg(self, line: str) -> None:
        if line:  # empty: it is not shown
            self._put((line + "\n").encode(errors="replace"))

    log = debug = info = warning = error = critical = exception = msg


def _to_stderr(stderr: TextIO | None) -> "_Lines | _Background":
    try:
        descriptor = None if stderr is None else stderr.fileno()
    except (OSError, ValueError):  # a stand-in that a program has put there
        descriptor = None
    if descriptor is None:
        return _Lines(stderr)
    writer = writer_for(descriptor)
    writer.make_dropped = _dropped_line
    return _Background(writer)


def _dropped_line(count: int) -> bytes:
    """The line that counts those which could not be written, now that it goes on."""
    event: Any = {"event": "log lines dropped", "count": count, "why": "they could not be written in time, or at all"}
    for processor in structlog.get_config()["processors"]:
        event = processor(None, "warning", event)
    return f"{event}\n".encode(errors="replace")


class _Forward(logging.Handler):
    """Brings what libraries log into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"exc_info": record.exc_info} if record.exc_info else {}
            level = min(record.levelno // 10 * 10, logging.CRITICAL)  # libraries may have levels of their own
            get_logger().log(level, record.getMessage(), logger=record.name, **fields)
        except Exception:  # noqa: BLE001 - a library's faulty log call must not become its failure
            self.handleError(record)
