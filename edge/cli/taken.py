"""Who has the address that Edge was to listen on.

In: the settings, and the error that listening met. Out: a sentence for the user. Must not: take longer than one look at
a model server, or be imported before an address is taken.
"""

import asyncio
from contextlib import suppress

from msgspec.structs import replace

from edge.cli.health import edge_at
from edge.config import Listen, parse_listen
from edge.settings import Settings
from edge.telemetry import log
from edge.upstream.fleet import FIRST_LOOK_S, Fleet
from edge.upstream.relay.relay import Relay


async def taken_by(settings: Settings, why: str) -> str:
    """``why``, followed by who listens there already, as far as that can be seen, and what to do."""
    listens = [parse_listen(text) for text in (*settings.server.listen, *settings.server.admin_listen)]
    taken = next((listen for listen in listens if listen.kind == "tcp" and f" {listen}: " in why), None)
    if taken is None:
        return why
    edge, server = await asyncio.gather(asyncio.to_thread(edge_at, taken), _server_at(settings, taken))
    who = f"an Edge ({edge}) serves there" if edge else server
    return f"{why}{f': {who}' if who else ''}; choose another with --port"


async def _server_at(settings: Settings, listen: Listen) -> str | None:
    """A model server that Edge recognises."""
    discovery = replace(settings.discovery, enabled=True, ports=[listen.port])
    log.configure(replace(settings.log, level="error"))  # what this look finds is for the sentence alone
    fleet = Fleet(
        replace(settings, upstream=[], discovery=discovery),
        lambda pool, upstream, _member: Relay(pool, upstream.name),
        log=log.get_logger(),
    )
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await fleet.look()
        member = next(iter(fleet.members), None)
    finally:
        await fleet.close()
    return None if member is None else f"{member.kind} listens there"
