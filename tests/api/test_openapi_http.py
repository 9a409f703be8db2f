"""``/openapi.json`` describes exactly what Edge serves, and whatever is asked gets an answer that it describes."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import schemathesis
from fakes.model_server import FakeModel
from fakes.ollama import be_ollama
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.schemas import APIOperation
from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES
from support.running import Running, Serve
from support.shapes import COUNT_TOKENS, EVERY_SURFACE, get

from edge import __version__

BOUNDED = settings(
    max_examples=5, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
Operation = APIOperation[Any, Any, Any, Any]
KEY = {"Authorization": "Bearer the-key"}
KEYLESS = {"/health", "/ready"}
SOON = (501, 503)  # no upstream for it, or none now: no fault of Edge's

load_all_checks()
CONFORMING = [
    CHECKS.get_one(f"{what}_conformance")
    for what in ("status_code", "content_type", "response_schema", "response_headers")
]


async def described(edge: Running, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await get(edge.port, "/openapi.json", headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return dict(answer.json)


@pytest.mark.parametrize("auth", [{}, {"keys": ["the-key"]}], ids=["open", "keys"])
async def test_it_is_a_valid_document_of_this_version(serve: Serve, auth: dict[str, Any]) -> None:
    told = await described(await serve(auth=auth), KEY)
    schemathesis.openapi.from_dict(told).validate()  # raises, and says where
    assert told["openapi"].startswith("3.1.")
    assert told["info"]["version"] == __version__


async def test_every_route_is_in_it_and_no_other(serve: Serve) -> None:
    edge = await serve()
    paths = (await described(edge))["paths"]
    told = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    app = edge.edge.listener._runner.app
    assert app is not None
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    # What answers GET answers HEAD too, which goes without saying.
    assert told == {(method, path) for method, path in served if method != "HEAD" or ("GET", path) not in served}


async def test_it_tells_who_needs_a_key_and_is_itself_behind_one(serve: Serve) -> None:
    open_one = await described(await serve())
    assert "security" not in open_one
    assert "securitySchemes" not in open_one["components"]
    edge = await serve(auth={"keys": ["the-key"]})
    assert (await get(edge.port, "/openapi.json")).status == 401
    told = await described(edge, KEY)
    schemes = told["components"]["securitySchemes"]
    assert [schemes[name]["type"] for needed in told["security"] for name in needed] == ["http", "apiKey", "apiKey"]
    keyless = {path for path, methods in told["paths"].items() if methods.get("get", {}).get("security") == []}
    assert keyless == KEYLESS
    assert schemes["ticket"]["in"] == "query"
    by_ticket = {
        path for path, methods in told["paths"].items() if {"ticket": []} in methods.get("get", {}).get("security", [])
    }
    assert by_ticket == {"/v1/chat/stream", "/stream", "/v1/streams", "/v1/streams/{id}"}
    for path, methods in told["paths"].items():
        assert all(("401" in one["responses"]) == (path not in keyless) for one in methods.values())


@pytest.mark.parametrize("kind", ["openai-compatible", "ollama"])
async def test_whatever_is_asked_gets_an_answer_as_described(serve: Serve, fake: FakeModel, kind: str) -> None:
    """Of an Edge that is open, and of one that asks for keys, with one; without one there is nothing."""
    only = ""
    if kind == "ollama":
        be_ollama(fake, "m")
        # What is passed on to change models is in the server's own words, and the fake one has none for that.
        upstream = {"allow_management": False}
        only = "/api/"  # the others have been asked
        relayed = {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings"}
    else:
        upstream = EVERY_SURFACE
        relayed = {CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, COUNT_TOKENS}
    open_one = await serve(upstream=upstream)
    behind_keys = await serve(upstream=upstream, auth={"keys": ["the-key"]})
    async with FakeModel() as unasked:
        shut = await serve(unasked.url, upstream=upstream, auth={"keys": ["the-key"]})
        edges = Edges(open_one.url, behind_keys.url, shut.url)
        await asyncio.to_thread(ask_everything, edges, relayed, only)
        assert unasked.requests == []
    assert edges.asked > 50
    assert fake.requests


@dataclass
class Edges:
    """Who is asked each of the generated requests: to make one up costs ten times as much as to ask it."""

    open_one: str
    behind_keys: str
    shut: str  # the same for who has no key
    asked: int = 0


async def test_nobody_gets_in_without_a_key_whatever_is_asked(serve: Serve) -> None:
    edge = await serve(upstream=EVERY_SURFACE, auth={"keys": ["the-key"]})
    await asyncio.to_thread(ask_without_a_key, edge.url)
    assert edge.records == []


def ask_without_a_key(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=KEY)
    with requests.Session() as session:
        for found in schema.get_all_operations():
            keyless = found.ok().definition.raw.get("security") == []
            ask_for_nothing(found.ok(), session, keyless=keyless)


def ask_for_nothing(operation: Operation, session: requests.Session, *, keyless: bool) -> None:
    @settings(BOUNDED, max_examples=1)
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Case) -> None:
        for name in ("Authorization", "x-api-key"):
            case.headers.pop(name, None)
        status = case.call(session=session).status_code
        assert status in ((200, 503) if keyless else (401,)), case.path

    ask()


def ask_everything(edges: Edges, relayed: set[str], only: str) -> None:
    """Generated requests for each operation: the ``relayed`` are passed on whatever they say."""
    schema = schemathesis.openapi.from_url(f"{edges.open_one}/openapi.json")
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if not operation.path.startswith(only):
                continue
            ask_as_described(operation, session, edges, relayed=operation.path in relayed)
            if operation.body or operation.query:
                ask_otherwise(operation, session, edges)


def ask_as_described(operation: Operation, session: requests.Session, edges: Edges, *, relayed: bool) -> None:
    @BOUNDED
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Case) -> None:
        for answer in asked(case, session, edges):
            assert not relayed or answer.status_code != 400, answer.text

    ask()


def ask_otherwise(operation: Operation, session: requests.Session, edges: Edges) -> None:
    @BOUNDED
    @given(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: Case) -> None:
        asked(case, session, edges)

    ask()


def asked(case: Case, session: requests.Session, edges: Edges) -> list[schemathesis.Response]:
    """The answers, which are among those that are described, and no failure of Edge's."""
    if isinstance(case.body, dict):  # the fake model server gives one answer, however many it is asked for
        case.body.pop("n", None)
        if isinstance(case.body.get("input"), list) and case.operation.path in (EMBEDDINGS, "/api/embed"):
            case.body["input"] = "hi"
        if case.operation.path == COMPLETIONS and isinstance(case.body.get("prompt"), list):
            case.body["prompt"] = "hi"
    answers = [
        case.call(base_url=edges.open_one, session=session),
        case.call(base_url=edges.behind_keys, session=session, headers=KEY),
    ]
    for answer in answers:
        assert answer.status_code < 500 or answer.status_code in SOON, answer.text
        assert str(answer.status_code) in case.operation.definition.raw["responses"]
        case.validate_response(answer, checks=CONFORMING)
    without = case.call(base_url=edges.shut, session=session).status_code
    assert without in ((200, 503) if case.operation.path in KEYLESS else (401,)), case.path
    edges.asked += 1
    return answers


async def test_what_any_request_may_meet_is_told_of_every_route(serve: Serve) -> None:
    """A head that is too large and an unknown ``Expect`` are answered before any route is looked at."""
    edge = await serve()
    document = (await get(edge.port, "/openapi.json")).json
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"417", "431"} <= set(operation["responses"]), (method, path)
    large = await get(edge.port, "/v1/models", {"X-Long": "x" * 70_000})
    assert large.status == 431
    unknown = await get(edge.port, "/v1/models", {"Expect": "something"})
    assert unknown.status == 417
    for answer in (large, unknown):
        described = document["paths"]["/v1/models"]["get"]["responses"][str(answer.status)]
        name = described["$ref"].rsplit("/", 1)[1]
        schema = document["components"]["responses"][name]["content"]["application/json"]["schema"]["$ref"]
        assert schema.endswith("OpenAIError")
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
