"""Writes what Edge makes of the recorded answers anew, after a change that is meant; then read the difference:

PYTHONPATH=.:tests python tests/captures/made.py
"""

from collections.abc import Awaitable, Callable

import uvloop
from cross.captured import CLIENTS, GOLDEN, settled, translatable, translated
from fakes.model_server import FakeModel
from support.captures import HOME, Capture
from support.running import Running, make_settings, start

Serve = Callable[..., Awaitable[Running]]


async def _written(capture: Capture) -> bytes:
    """All clients, one after the other; as streams where the recorded answer is one."""
    parts = []
    for client in CLIENTS[capture.surface]:
        if not (capture.streamed or client.whole):
            continue
        async with FakeModel() as fake:

            async def serve(*urls: str, **sections: object) -> Running:
                return await start(make_settings(*urls, **sections))  # type: ignore[arg-type]

            edge, answer = await translated(serve, fake, capture, client, stream=capture.streamed, at_once=True)
            await edge.record()
            await edge.stop()
            parts.append(f"##### {client.name}\n".encode() + settled(answer))
    return b"".join(parts)


async def main() -> None:
    """Write all files anew."""
    for capture in translatable():
        if str(capture) in GOLDEN:
            (HOME / "translated").mkdir(exist_ok=True)
            (HOME / "translated" / f"{capture}.txt").write_bytes(await _written(capture))


if __name__ == "__main__":
    uvloop.run(main())
