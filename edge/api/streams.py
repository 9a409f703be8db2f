"""Streams by their ids: read on where a reader was, one or several at once, list, stop.

In: ``GET`` and ``DELETE /v1/streams/{id}``, ``GET /v1/streams``. Out: what was missed and what follows, or what is
known. Must not: generate anything.
"""

from collections.abc import Sequence

from aiohttp import web

from edge.api.answer import json_answer
from edge.api.context import caller
from edge.api.merging import follow, ids
from edge.api.request_options import flag, last_event_id
from edge.api.resuming import count_read, resume, resume_after
from edge.errors import BadRequest, Gone, NotFound
from edge.exchange.ports import ExchangeServices, RunningExchange, RunningTransfer
from edge.policy.auth.principal import Principal
from edge.policy.lifecycle import LifecycleEvent
from edge.policy.routing import printable
from edge.protocol.event_ids import is_stream
from edge.resume.lookup import find_all, own_exchange, unknown
from edge.store.ports import StreamState
from edge.stream.persistence import StoredStream

_MOST_LISTED = 1000
_DIGITS = 16
_STOP_S = 2.0  # for a stop to reach the process that generates, and for its answer


def routes(services: ExchangeServices) -> list[web.RouteDef]:
    """All routes for streams by their ids."""

    async def read(request: web.Request) -> web.StreamResponse:
        stream_id = _stream_id(request)
        if _transfer(services, caller(request), stream_id) is not None:
            raise Gone(f"{stream_id} changes models: it can be listed and stopped, not read", code="stream_not_kept")
        last = last_event_id(request)
        if last is not None:
            return await resume(request, services, None, last, stream_id)
        return await resume_after(request, services, None, stream_id, _starting_after(request))

    async def show_all(request: web.Request) -> web.StreamResponse:
        asked = ids(request)
        count_read(request, services)
        if flag("follow", request.query.get("follow")):
            return await follow(request, services, asked)
        principal = caller(request)
        return await (_listed(services, principal) if asked is None else _chosen(services, principal, asked))

    async def stop(request: web.Request) -> web.Response:
        stream_id = _stream_id(request)
        count_read(request, services)
        return await _stopped(services, caller(request), stream_id)

    return [
        web.get("/v1/streams", show_all, allow_head=False),
        web.get("/v1/streams/{id}", read, allow_head=False),
        web.delete("/v1/streams/{id}", stop),
    ]


def _starting_after(request: web.Request) -> int:
    asked = request.query.get("starting_after", "0")
    if not (asked.isascii() and asked.isdigit() and len(asked) < _DIGITS):
        raise BadRequest(
            f"starting_after: must be the number of the last event that was seen, not {printable(asked)!r}",
            param="starting_after",
        )
    return int(asked)


async def _listed(services: ExchangeServices, principal: Principal) -> web.Response:
    stored = await services.archive.streams(principal.name, _MOST_LISTED)
    shown = {state.meta.id: _stored(services, state) for state in stored}
    for exchange in services.registry.streams.values():
        if exchange.asked.principal.name == principal.name:
            shown[exchange.stream_id] = _live(services, exchange)
    if principal.admin:
        shown |= {
            stream_id: _passing(services, transfer) for stream_id, transfer in services.registry.transfers.items()
        }
    data = sorted(shown.values(), key=lambda stream: float(str(stream["created"])), reverse=True)
    return json_answer({"object": "list", "data": data[:_MOST_LISTED]})


async def _chosen(services: ExchangeServices, principal: Principal, asked: Sequence[str]) -> web.Response:
    """Of these, those that there are."""
    transfers = {stream_id: _transfer(services, principal, stream_id) for stream_id in asked}
    data = [_passing(services, transfer) for transfer in transfers.values() if transfer is not None]
    others = [stream_id for stream_id in asked if transfers[stream_id] is None and is_stream(stream_id)]
    for _, place in await find_all(services, principal.name, others):
        if not isinstance(place, NotFound):
            data.append(_stored(services, place.state) if isinstance(place, StoredStream) else _live(services, place))
    return json_answer({"object": "list", "data": data})


async def _stopped(services: ExchangeServices, principal: Principal, stream_id: str) -> web.Response:
    transfer = _transfer(services, principal, stream_id)
    if transfer is not None:
        transfer.stop()
        return json_answer(_passing(services, transfer))
    exchange = own_exchange(services, principal.name, stream_id)
    if exchange is not None:
        exchange.generation.stop(LifecycleEvent.STOP)
        return json_answer(_live(services, exchange))
    state = await services.archive.stop(principal.name, stream_id, _STOP_S)
    if state is None:
        raise unknown(stream_id)
    return json_answer(_stored(services, state), 202 if state.ending is None else 200)


def _transfer(services: ExchangeServices, principal: Principal, stream_id: str) -> RunningTransfer | None:
    """The request of this id that changes models, if it runs here; only admins can know of it, whoever began it."""
    return services.registry.transfers.get(stream_id) if principal.admin else None


def _stream_id(request: web.Request) -> str:
    stream_id = request.match_info["id"]
    if not is_stream(stream_id):
        raise unknown(printable(stream_id))
    return stream_id


def _live(services: ExchangeServices, exchange: RunningExchange) -> dict[str, object]:
    generation, asked, journal = exchange.generation, exchange.asked, exchange.generation.journal
    age = exchange.elapsed_s
    return {
        "id": exchange.stream_id,
        "object": "stream",
        "state": "live" if generation.outcome is None else "ended",
        "outcome": generation.outcome,
        "surface": str(exchange.prepared.surface),
        "model": exchange.prepared.model,
        "upstream": exchange.upstream,
        "session": asked.session,
        "resumable": generation.resumable,
        "first": journal.before + 1,
        "last": journal.last,
        "created": round(services.archive.clock() - age, 3),
        "age_s": round(age, 3),
        "readers": generation.readers,
        "reconnections": generation.reconnections,
    }


def _passing(services: ExchangeServices, transfer: RunningTransfer) -> dict[str, object]:
    asked, age = transfer.asked, transfer.elapsed_s
    return {
        "id": asked.stream_id,
        "object": "stream",
        "state": "live" if transfer.outcome is None else "ended",
        "outcome": transfer.outcome,
        "surface": f"management/{asked.operation}",
        "model": asked.model,
        "upstream": transfer.member.name,
        "session": None,
        "resumable": False,
        "first": 0,
        "last": 0,
        "created": round(services.archive.clock() - age, 3),
        "age_s": round(age, 3),
        "readers": 1,
        "reconnections": 0,
    }


def _stored(services: ExchangeServices, state: StreamState) -> dict[str, object]:
    meta, ending = state.meta, state.ending
    return {
        "id": meta.id,
        "object": "stream",
        "state": "live" if ending is None else "ended",
        "outcome": None if ending is None else ending.outcome,
        "surface": meta.surface,
        "model": meta.model,
        "upstream": state.upstream,
        "session": meta.session,
        "resumable": True,
        "first": state.first,
        "last": state.last,
        "created": round(meta.created, 3),
        "age_s": round(services.archive.clock() - meta.created, 3),
        "readers": None,
        "reconnections": state.reconnections,
    }
