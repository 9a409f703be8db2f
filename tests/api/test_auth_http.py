"""Who may call: keys in either header, what is open without one, and that a key is found nowhere afterwards."""

import orjson
import pytest
from fakes.model_server import FakeModel, chunk, end, head, json_answer, sse_error, stall
from support.raw import CHAT, MESSAGES, RESPONSES, Answer, RawClient, ask
from support.running import Running, Serve, Tape
from support.shapes import COUNT_TOKENS, EVERY_SURFACE, assert_told, get, say, valid_body

from edge.telemetry import log

KEY = "canary-7f3a-of-the-first-client"
OTHER = "canary-91c2-of-the-second-client"
WRONG = "canary-dead-that-nobody-gave-out"
CANARY = "canary-"
AUTH = {"keys": [KEY, OTHER]}

RIGHT = {
    "bearer": {"Authorization": f"Bearer {KEY}"},
    "bearer in any case": {"authorization": f"bearer {OTHER}"},
    "x-api-key": {"x-api-key": KEY},
    "api-key": {"api-key": KEY},
    "one of both is right": {"Authorization": f"Bearer {WRONG}", "x-api-key": KEY},
}
REFUSED = {
    "none": {},
    "wrong bearer": {"Authorization": f"Bearer {WRONG}"},
    "wrong x-api-key": {"x-api-key": WRONG},
    "part of one": {"Authorization": f"Bearer {KEY[:-1]}"},
    "more than one": {"Authorization": f"Bearer {KEY} {OTHER}"},
    "basic": {"Authorization": f"Basic {KEY}"},
    "no scheme": {"Authorization": KEY},
    "empty": {"Authorization": "Bearer ", "x-api-key": ""},
    "in another header": {"X-Auth-Token": KEY, "Cookie": f"key={KEY}"},
    "very long": {"x-api-key": KEY * 200},
}


@pytest.mark.parametrize("headers", RIGHT.values(), ids=RIGHT)
async def test_a_key_in_either_header_is_enough_and_stays_here(serve: Serve, fake: FakeModel, headers: dict) -> None:
    """The record names who it was; the model server never sees the key."""
    edge = await serve(auth=AUTH)
    answer = await ask(edge.port, CHAT, valid_body(CHAT, stream=True), headers)
    assert (answer.status, answer.clean) == (200, True)
    principal = (await edge.record())["principal"]
    assert principal.startswith("key-")
    assert principal == edge.lines.of("start")[0]["principal"]
    (request,) = fake.requests
    assert CANARY not in str(request.headers) + request.body.decode()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
async def test_without_a_right_key_there_is_nothing(serve: Serve, fake: FakeModel, headers: dict, path: str) -> None:
    edge = await serve(auth=AUTH)
    answer = await ask(edge.port, path, valid_body(path), headers)
    assert_told(answer, 401, path, "invalid_api_key", "authentication_error")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert CANARY not in str(answer)
    assert fake.requests == []
    assert edge.records == []


async def test_each_key_is_a_principal_of_its_own_and_always_the_same(serve: Serve) -> None:
    edge = await serve(auth=AUTH)
    for key in (KEY, OTHER, KEY):
        await ask(edge.port, CHAT, valid_body(CHAT), {"x-api-key": key})
    first, second, third = [line["principal"] for line in await edge.lines.wait("exchange", 3)]
    assert first == third != second


async def test_the_key_is_asked_for_before_the_body_is_read(serve: Serve) -> None:
    edge = await serve(auth=AUTH)
    first_line = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await say(edge.port, f"{first_line}Content-Length: 1000\r\n\r\n".encode())
    assert_told(answer, 401, CHAT, "invalid_api_key")


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_need_no_key(serve: Serve, path: str) -> None:
    edge = await serve(auth=AUTH)
    assert (await get(edge.port, path)).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/v1/models", "/v1/models/m", "/", "/nowhere", "/health/", "/ready?key="])
async def test_everything_else_needs_one_even_to_learn_what_exists(serve: Serve, path: str) -> None:
    edge = await serve(auth=AUTH)
    status = 200 if path.startswith("/ready") else 401
    assert (await get(edge.port, path)).status == status
    assert (await get(edge.port, path, RIGHT["bearer"])).status in (200, 404)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer dummy"}, {"x-api-key": "sk-none"}])
async def test_without_keys_any_key_does_since_sdks_insist_on_one(serve: Serve, headers: dict) -> None:
    edge = await serve()
    assert (await ask(edge.port, CHAT, valid_body(CHAT), headers)).status == 200
    assert (await edge.record())["principal"] == "anonymous"


async def test_allow_anonymous_does_not_open_what_has_keys(serve: Serve) -> None:
    """It only allows listening beyond loopback without any."""
    edge = await serve(auth={**AUTH, "allow_anonymous": True})
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401
    assert (await ask(edge.port, CHAT, valid_body(CHAT), RIGHT["bearer"])).status == 200


async def fail_in_every_way(edge: Running, fake: FakeModel, tape: Tape) -> list[Answer]:
    """Each failure that could quote what the client sent, met with right and with wrong keys."""
    answers = []
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}, {"x-api-key": WRONG}):
        for path in (CHAT, MESSAGES, RESPONSES, COUNT_TOKENS):
            for script in ([head(), chunk(sse_error()), end()], json_answer({"error": "no"}, 401), [head(), end()]):
                if headers.get("x-api-key") != WRONG:
                    fake.script(*script)
                answers.append(await ask(edge.port, path, valid_body(path), headers))
            answers.append(await ask(edge.port, path, b"{", headers))
            answers.append(await get(edge.port, path, headers))
        answers.append(await get(edge.port, "/nowhere", headers))
        answers.append(await get(edge.port, "/v1/models", headers))
        answers.append(await get(edge.port, "/metrics", headers))
        answers.append(await ask(edge.port, CHAT, valid_body(CHAT), {**headers, "Host": "evil.example"}))
    fake.script(stall())
    async with RawClient(edge.port) as client:
        await client.post(CHAT, valid_body(CHAT), {"x-api-key": KEY})
        await fake.request(len(fake.requests))
        client.reset()
    await tape.wait("exchange", 25)
    return answers


async def test_a_key_is_found_in_no_line_and_no_answer(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(
        auth=AUTH, upstream={**EVERY_SURFACE, "api_key": f"{CANARY}upstream"}, server={"allowed_hosts": ["localhost"]}
    )
    tape = Tape()
    log.configure(edge.edge.settings.log, stream=tape)
    answers = await fail_in_every_way(edge, fake, tape)
    assert {answer.status for answer in answers} >= {200, 400, 401, 403, 404, 405, 502}
    assert CANARY not in str(answers)
    assert len(tape.lines) > 50
    assert CANARY not in tape.text.getvalue()


@pytest.mark.parametrize(
    "broken",
    [
        "x-api-key : {key}\r\n",
        "x-api-key\r\n {key}\r\n",
        " x-api-key: {key}\r\n",
        "x-api-key: {key}\r\nx-api-key: {key}\nbare: \x00\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nx-api-key: {key}\r\n",
        "x-api-key: {key}" + "x" * 20_000 + "\r\n",
    ],
)
async def test_a_key_in_a_request_that_is_no_http_is_not_logged_either(serve: Serve, broken: str) -> None:
    edge = await serve(auth=AUTH)
    tape = Tape()
    log.configure(edge.edge.settings.log, stream=tape)
    head_ = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n" + broken.format(key=KEY)
    answer = await say(edge.port, f"{head_}\r\n".encode())
    assert 400 <= answer.status < 500
    (line,) = await tape.wait("refused")
    assert line["status"] == answer.status
    assert CANARY not in tape.text.getvalue()


async def test_what_a_principal_may_be_called_is_safe_to_log(serve: Serve) -> None:
    edge = await serve(auth=AUTH)
    await ask(edge.port, CHAT, valid_body(CHAT), RIGHT["bearer"])
    record = await edge.record()
    assert KEY not in orjson.dumps(record).decode()
    assert len(record["principal"]) == len("key-") + 8
