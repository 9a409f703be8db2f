"""``edge bench``: rounds of streams at once, and what they came to.

In: a target and a plan. Out: a table or JSON on stdout, progress on stderr, the exit status.
Must not: know whether an Edge or a model server answers.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import click
import orjson

from edge.cli.bench_chat import ChatAnswer
from edge.cli.bench_load import Connection, Target, fetch

_SHOWN_FAULTS = 10
_ASK_S = 10.0
_REFRESH_S = 1.0  # drawing takes milliseconds, in which nothing is read
_PERCENTILES = (50, 90, 99)
Figures = dict[str, Any]
Moved = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do; see the options of ``edge bench``."""

    url: str
    model: str | None
    streams: int
    tokens: int
    rounds: int
    prompt: str
    timeout_s: float


class Unanswered(Exception):
    """Nothing can be measured; the text says why."""


def main(target: Target, plan: Plan, *, as_json: bool) -> int:
    """Run, print, and return the exit status."""
    try:
        figures = _run(measure(target, plan))
    except (Unanswered, OSError) as error:
        click.echo(f"edge bench: {plan.url}: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        return 130
    if as_json:
        click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    else:
        _show(figures)
    return 1 if figures["failed"] else 0


def _run(work: Coroutine[Any, Any, Figures]) -> Figures:
    try:
        import uvloop  # noqa: PLC0415 - there is none on some platforms
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def measure(target: Target, plan: Plan) -> Figures:
    """Run all rounds.

    Raises:
        Unanswered: No model is named, and none can be found.
        OSError: The target cannot be reached.
    """
    model = plan.model or await _first_model(target)
    answers: list[ChatAnswer] = []
    seconds = 0.0
    with _progress(plan) as moved:
        for number in range(plan.rounds):
            started = time.monotonic()
            answers += await _round(target, plan, model, number, moved)
            seconds += time.monotonic() - started
    return figures_of(plan, model, answers, seconds)


async def _round(target: Target, plan: Plan, model: str, number: int, moved: Moved) -> list[ChatAnswer]:
    """All streams at once, each on a connection of its own, made before the clock of its answer starts."""
    opened = await asyncio.gather(*(Connection.open(target) for _ in range(plan.streams)))
    over, left = asyncio.Event(), plan.streams

    def one_over() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            over.set()

    answers = []
    for stream, connection in enumerate(opened):
        request = target.post("/v1/chat/completions", _body(plan, model, f"{number}.{stream}"))
        answers.append(ChatAnswer(time.monotonic(), moved, one_over))
        connection.ask(request, answers[-1])
    with suppress(TimeoutError):
        async with asyncio.timeout(plan.timeout_s):
            await over.wait()
    for answer, connection in zip(answers, opened, strict=True):
        if not connection.idle:
            answer.fault = answer.fault or f"not over after {plan.timeout_s:g} s"
        connection.leave()
    return answers


def _body(plan: Plan, model: str, mark: str) -> bytes:
    # The mark makes each prompt a different one from its start: a cached prefix would flatter the time to first token.
    message = {"role": "user", "content": f"({mark}) {plan.prompt}"}
    asked = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": plan.tokens}
    return orjson.dumps({"model": model, "messages": [message], **asked})


async def _first_model(target: Target) -> str:
    status, body = await fetch(target, target.get("/v1/models"), _ASK_S)
    try:
        return str(orjson.loads(body)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise Unanswered(f"/v1/models names no model (status {status}); give one with --model") from None


# --- figures --------------------------------------------------------------------------------------------------------


def figures_of(plan: Plan, model: str, answers: Sequence[ChatAnswer], seconds: float) -> Figures:
    """What the answers came to; times in seconds.

    Tokens are those that the servers reported, if all whole answers have such a report, else events with content.
    TPOT is known only from reported ones.
    """
    whole = [answer for answer in answers if answer.fault is None]
    reported = bool(whole) and all(answer.used is not None for answer in whole)
    tokens = sum((answer.used or 0) if reported else answer.chunks for answer in whole)
    return {
        "url": plan.url,
        "model": model,
        "streams": plan.streams,
        "rounds": plan.rounds,
        "max_tokens": plan.tokens,
        "completed": len(whole),
        "failed": len(answers) - len(whole),
        "faults": dict(Counter(answer.fault for answer in answers if answer.fault).most_common()),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_from": "usage" if reported else "events",
        "tokens_per_s": tokens / seconds if seconds else 0.0,
        "ttft_s": percentiles([answer.first - answer.sent for answer in whole if answer.first is not None]),
        "itl_s": percentiles([gap for answer in whole for gap in answer.gaps]),
        "tpot_s": percentiles(
            [
                (answer.last - answer.first) / (answer.used - 1)
                for answer in whole
                if answer.first is not None and answer.used is not None and answer.used > 1
            ]
        ),
    }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p90, p99 and the largest; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    ranks = {f"p{p}": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in _PERCENTILES}
    return {**ranks, "max": ordered[-1]}


# --- printing -------------------------------------------------------------------------------------------------------


def _progress(plan: Plan) -> AbstractContextManager[Moved]:
    """A bar on stderr while a person watches; elsewhere nothing."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _count: None)
    from edge.cli.bench_show import bar  # noqa: PLC0415 - rich, only where it is used

    return bar(plan.streams * plan.rounds * plan.tokens, _REFRESH_S)


def _show(figures: Figures) -> None:
    from edge.cli.bench_show import show  # noqa: PLC0415 - rich, only where it is used

    show(figures, _SHOWN_FAULTS)
