"""Results as tables for a person and as JSON for a program.

In: results. Out: rich's drawing, a file. Must not: measure, or leave out a peer that could not be measured.

The number after ± is half the distance between the least and the most of all rounds, of the median.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from figures import GOALS, REFERENCES, Measured, Results, reached
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scenarios import SCENARIOS, Metric, Scenario

_FAULTS_SHOWN = 5


def show(console: Console, results: Results, missing: Mapping[str, str]) -> None:
    """Print all tables."""
    for name, peers in results.items():
        console.print(Text(f"{name}  {SCENARIOS[name].title}", style="bold"))
        console.print(_table(SCENARIOS[name], peers))
        for peer, measured in peers.items():
            for fault, count in measured.faults.most_common(_FAULTS_SHOWN):
                console.print(Text(f"  {peer}: {count} x {fault}", style="bold red"))
    for peer, why in missing.items():
        console.print(Text(f"{peer} is missing: {why}", style="yellow"))
    _goals(console, results)


def _table(scenario: Scenario, peers: Mapping[str, Measured]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for metric in scenario.metrics:
        table.add_column(metric.title, justify="right")
        if metric.ratio:
            for reference in REFERENCES:
                table.add_column(f"x {reference}", justify="right")
    for peer, measured in peers.items():
        cells: list[Text] = [Text(peer, style="bold" if peer == "edge" else "")]
        for metric in scenario.metrics:
            cells.append(_cell(measured, metric))
            if metric.ratio:
                cells += [_ratio(measured, peers.get(reference), metric) for reference in REFERENCES]
        if measured.faults:
            cells[0].append(" WRONG", style="bold red")
        table.add_row(*cells)
    return table


def _cell(measured: Measured, metric: Metric) -> Text:
    spread = measured.spread(metric.key)
    if spread is None:
        return Text("-")
    text = Text(f"{spread.median:,.{metric.digits}f}", style="bold red" if spread.median < metric.least else "")
    if len(measured.rounds) > 1 and spread.median:
        text.append(f" ±{50 * (spread.most - spread.least) / spread.median:.0f}%", style="dim")
    return text


def _ratio(measured: Measured, reference: Measured | None, metric: Metric) -> Text:
    ratio = measured.ratio(reference, metric.key)
    return Text("-" if ratio is None else f"{ratio:.2f}")


def _goals(console: Console, results: Results) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("", "at most", "is", ""):
        table.add_column(title)
    for goal in GOALS:
        value = reached(goal, results)
        if value is not None:
            limit = f"{goal.limit:g}" + (f" x {goal.than}" if goal.than else "")
            kept = Text("kept", style="green") if value <= goal.limit else Text("missed", style="bold red")
            if results[goal.scenario]["edge"].faults:
                kept = Text("WRONG", style="bold red")  # a figure of streams that were not what was sent
            titles = {metric.key: metric.title for metric in SCENARIOS[goal.scenario].metrics}
            who = "" if goal.peer == "edge" else f" {goal.peer}" if goal.than else f" {goal.peer} above edge"
            table.add_row(f"{goal.scenario} {titles[goal.key]}{who}", limit, f"{value:.2f}", kept)
    if table.row_count:
        console.print(Text("Edge's goals", style="bold"))
        console.print(table)


def as_json(results: Results, missing: Mapping[str, str], facts: Mapping[str, object]) -> dict[str, object]:
    """Everything that was measured, round by round, with medians and ratios."""
    scenarios: dict[str, object] = {}
    for name, peers in results.items():
        scenarios[name] = {peer: _entry(SCENARIOS[name], measured, peers) for peer, measured in peers.items()}
    return {**facts, "missing": dict(missing), "scenarios": scenarios}


def _entry(scenario: Scenario, measured: Measured, peers: Mapping[str, Measured]) -> dict[str, object]:
    medians = {metric.key: s.median for metric in scenario.metrics if (s := measured.spread(metric.key))}
    ratios = {
        f"{metric.key}/{reference}": ratio
        for metric in scenario.metrics
        if metric.ratio
        for reference in REFERENCES
        if (ratio := measured.ratio(peers.get(reference), metric.key)) is not None
    }
    rounds = [{"round": number, **figures} for number, figures in measured.rounds.items()]
    return {"median": medians, "ratio": ratios, "rounds": rounds, "faults": dict(measured.faults)}


def write(folder: Path, stamp: str, document: Mapping[str, object], svg: str) -> Path:
    """Write JSON and chart; returns the JSON's path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{stamp}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    path.with_suffix(".svg").write_text(svg)
    return path
