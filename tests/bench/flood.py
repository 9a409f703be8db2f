"""64 streams at full speed until stdin ends, then one line of JSON: what they came to. ``flood.py URL``.

An API key, if one is needed, is taken from ``EDGE_BENCH_KEY``.
"""

import asyncio
import json
import os
import sys
import time

import uvloop
import wire
from checks import Exact
from load import Load

_STREAMS = 64


async def main(url: str) -> None:
    """Flood."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    async with Load(url, os.environ.get("EDGE_BENCH_KEY", "")) as load:
        began = time.monotonic()
        await load.start(Exact, wire.Ask(4000, per=16), _STREAMS, over_s=0.2, again=True)
        await ended.wait()
        rate = load.tally.tokens / (time.monotonic() - began)
        faults = dict(load.tally.faults)
    loop.remove_reader(sys.stdin.fileno())
    sys.stdout.write(json.dumps({"tokens_per_s": rate, "faults": faults}) + "\n")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
