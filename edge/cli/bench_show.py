"""What ``edge bench`` shows a person: a bar while it runs, tables at the end.

In: figures. Out: rich's drawing. Must not: measure.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_TIMES = {
    "ttft_s": "time to first token (TTFT)",
    "itl_s": "gap between tokens (ITL)",
    "tpot_s": "time per output token (TPOT)",
}
_COLUMNS = ("p50", "p90", "p99", "max")


@contextmanager
def bar(total: int, refresh_s: float) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; call what it yields with each number of tokens that came.

    It is drawn from those calls, not from a thread of its own, so that it does not disturb what is measured.
    """
    columns = (TextColumn("{task.completed} tokens"), BarColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True, auto_refresh=False
    ) as progress:
        task = progress.add_task("", total=total, rate="")
        started = drawn = time.monotonic()
        count = 0

        def moved(more: int) -> None:
            nonlocal count, drawn
            count += more
            now = time.monotonic()
            if now - drawn > refresh_s:
                drawn = now
                progress.update(task, completed=count, rate=f"{count / (now - started):.0f}/s", refresh=True)

        yield moved


def show(figures: dict[str, Any], most_faults: int) -> None:
    """Print the tables."""
    console = Console()
    streams = f"{figures['streams']} streams x {figures['rounds']} rounds, {figures['max_tokens']} tokens at most"
    console.print(Text(f"{figures['url']}  {figures['model']}: {streams}"))
    times = Table(box=box.SIMPLE_HEAD)
    times.add_column("ms")
    for name in _COLUMNS:
        times.add_column(name, justify="right")
    for key, title in _TIMES.items():
        values = figures[key]
        times.add_row(title, *(f"{values[name] * 1000:.1f}" if values else "-" for name in _COLUMNS))
    console.print(times)
    counted = "reported by the server" if figures["tokens_from"] == "usage" else "counted as events"
    console.print(
        f"{figures['tokens_per_s']:.1f} tokens/s: {figures['tokens']} tokens ({counted}) in {figures['seconds']:.1f} s",
        highlight=False,
    )
    console.print(f"{figures['completed']} streams whole, {figures['failed']} not", highlight=False)
    for fault, count in list(figures["faults"].items())[:most_faults]:
        console.print(Text(f"  {count} x {fault}", style="red"))
