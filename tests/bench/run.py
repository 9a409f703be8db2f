"""``make bench``: every scenario with every peer, side by side in one run.

In: PEERS, SCENARIOS, ROUNDS and SCALE as arguments. Out: tables, ``results/*.json`` and ``*.svg``, the exit status: 1
if Edge's streams were not what was sent. Must not: leave a process behind, use anything but loopback, or run for ever.
"""

import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import chart
import click
import report
import uvloop
from environments import Missing
from figures import Measured, Results
from model import Model
from processes import cores, raise_file_limit
from proxies import PEERS, Command, running
from rich.console import Console
from scenarios import QUICK, SCENARIOS, Scenario, Site, take_place

_RESULTS = Path(__file__).parent / "results"
_ONE_S = 90.0  # the longest that one measurement may take once its proxy runs
_FULL = ("direct", "nginx", "plain", "edge", "fastapi", "vllm-router", "litellm")

console = Console(width=None if sys.stdout.isatty() else 140)
progress = Console(stderr=True)


@dataclass(frozen=True)
class Choice:
    """What to measure."""

    peers: Sequence[str]
    scenarios: Sequence[Scenario]
    rounds: int
    scale: float
    until: float


class Bench:
    """One run."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.results: Results = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._commands: dict[str, Command | None] = {}
        self._proxy_core, self._load_core = cores()

    def find(self) -> None:
        """Look for the peers, and install those that have an environment of their own."""
        crossing = [name for scenario in self.choice.scenarios for name in scenario.peers]
        for name in dict.fromkeys([*self.choice.peers, *crossing]):
            if name == "direct":
                self._commands[name] = None
                continue
            try:
                self.versions[name], self._commands[name] = PEERS[name].find()
            except Missing as error:
                self._miss(name, str(error))

    async def run(self) -> None:
        """Measure all; peers take turns within each round, in alternating order."""
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        os.sched_setaffinity(0, {self._load_core})
        if self._proxy_core == self._load_core:
            progress.print("only one core: proxy, load and model server share it", style="bold red")
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as temporary, self._model(Path(temporary)) as model:
            for scenario in self.choice.scenarios:
                await self._scenario(scenario, model, Path(temporary))

    def _model(self, folder: Path) -> Model:
        return Model(self._load_core, folder)

    async def _scenario(self, scenario: Scenario, model: Model, temporary: Path) -> None:
        named = scenario.peers or self.choice.peers
        peers = [peer for peer in self._commands if peer in named and (peer != "direct" or scenario.without_proxy)]
        self.results[scenario.name] = {peer: Measured() for peer in peers}
        for number in range(min(self.choice.rounds, scenario.rounds)):
            for peer in peers[:: -1 if number % 2 else 1]:
                folder = Path(tempfile.mkdtemp(dir=temporary))
                await self._measure(scenario, peer, number, model, folder)

    async def _measure(self, scenario: Scenario, peer: str, number: int, model: Model, folder: Path) -> None:
        if peer in self.missing:
            return
        if time.monotonic() > self.choice.until:
            self.results[scenario.name][peer].faults["not measured: the time for the whole run is over"] += 1
            return
        measured = self.results[scenario.name][peer]
        try:
            async with running(PEERS[peer], self._commands[peer], model.url, self._proxy_core, folder) as proxy:
                site = Site(proxy, model, self._load_core, folder, self.choice.scale)
                async with asyncio.timeout(_ONE_S):
                    figures, faults = await take_place(scenario, site)
        except Missing as error:
            self._miss(peer, str(error))
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError
            measured.faults[f"broke the measurement: {type(error).__name__} {error}"] += 1
        else:
            measured.rounds[number] = figures
            measured.faults.update(faults)
            main = scenario.metrics[0]
            value = "-" if figures[main.key] is None else f"{figures[main.key]:.{main.digits}f}"
            wrong = f"  WRONG: {faults.most_common(1)}" if faults else ""
            progress.print(f"{scenario.name} {number + 1}  {peer:12} {value:>9} {main.title}{wrong}", highlight=False)

    def _miss(self, peer: str, why: str) -> None:
        self.missing[peer] = why
        progress.print(f"{peer} is missing: {why}", style="yellow", highlight=False, markup=False)

    def facts(self) -> dict[str, object]:
        """Where, when and what."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": self.versions,
            "rounds": self.choice.rounds,
            "scale": self.choice.scale,
        }

    def wrong(self) -> bool:
        """Whether Edge was not measured well everywhere."""
        edge = [peers["edge"] for peers in self.results.values() if "edge" in peers]
        return "edge" in self.missing or any(measured.faults or not measured.rounds for measured in edge)


def choose(peers: str, scenarios: str, rounds: int, scale: float, minutes: float) -> Choice:
    """Read the arguments: without any, everything; with peers alone, the quick look.

    Raises:
        click.BadParameter: There is no such peer or scenario.
    """
    named = peers.split() or list(_FULL)
    if "edge" not in named:
        named.append("edge")  # all others are there to be compared with it
    wanted = scenarios.split() or list(QUICK if peers else SCENARIOS)
    if wanted == ["all"]:
        wanted = list(SCENARIOS)
    for name, known in [*((name, PEERS) for name in named), *((name, SCENARIOS) for name in wanted)]:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {' '.join(known)}")
    return Choice(named, [SCENARIOS[name] for name in wanted], rounds, scale, time.monotonic() + minutes * 60)


@click.command()
@click.option("--peers", default="", help=f"Of {' '.join(PEERS)}; edge is always among them.")
@click.option("--scenarios", default="", help=f"Of {' '.join(SCENARIOS)}, or all.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--scale", type=click.FloatRange(0.1, 20), default=1.0, show_default=True, help="Stretches all times.")
@click.option("--minutes", default=60.0, show_default=True, help="After so many nothing more is measured.")
def main(peers: str, scenarios: str, rounds: int, scale: float, minutes: float) -> None:
    """Measure Edge and its peers."""
    bench = Bench(choose(peers, scenarios, rounds, scale, minutes))
    raise_file_limit()
    bench.find()
    with suppress(KeyboardInterrupt, asyncio.CancelledError):  # what has been measured by then is told
        uvloop.run(bench.run())
    report.show(console, bench.results, bench.missing)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    document = report.as_json(bench.results, bench.missing, bench.facts())
    path = report.write(_RESULTS, stamp, document, chart.draw(bench.results))
    console.print(f"{path} and .svg", highlight=False, soft_wrap=True)
    sys.exit(1 if bench.wrong() else 0)


if __name__ == "__main__":
    main()
