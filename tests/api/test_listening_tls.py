"""TLS: what clients see of it, and that a stream's ends are over TLS what they are without."""

import asyncio
import hashlib
import shutil
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import DONE, FakeModel, chat_answer, chat_role, chat_token, chunk, end, gate, head, rst
from support.faults import SURFACES, assert_cut, every_surface
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, chat_body, dechunk
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken
from support.tls import TlsClient, make_certificate

SPOKEN_CHAT = SPOKEN[0]
BUFFER = 256 * 1024
SMALL_WINDOW = 4096


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Any]:
    return make_certificate(tmp_path)


async def test_a_stream_over_tls_is_whole_and_the_connection_is_used_again(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any]
) -> None:
    fake.script(*chat_answer(["a", "b"]))
    edge = await serve(server=certificate)
    assert edge.url == f"https://127.0.0.1:{edge.port}"
    async with TlsClient(edge.port, trust=certificate["tls_cert"]) as client:
        assert (client.tls.version(), client.tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        await client.post(CHAT, chat_body())
        answer = await client.answer()
        assert (answer.status, answer.clean, answer.events[-1]) == (200, True, DONE)
        client.buffer = b""
        await client.get("/health", {"Connection": "close"})
        assert (await client.answer()).json == {"status": "ok"}
        assert (await client.ending(), client.farewell) == ("eof", True)


@every_surface
@pytest.mark.parametrize("end_of_upstream", [rst, end])
async def test_a_cut_upstream_is_a_reset_without_a_farewell(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any], spoken: Spoken, end_of_upstream: Any
) -> None:
    fake.script(head(), chunk(spoken.prelude + spoken.token), gate("rest"), end_of_upstream())
    edge = await serve(server=certificate, upstream=SURFACES)
    async with TlsClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True))
        await client.until(b"tok")
        fake.open("rest")
        assert_cut(spoken, await client.answer())
        assert not client.farewell
    assert (await edge.record())["outcome"] == "upstream_cut"


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
async def test_curl_fails_on_a_cut(serve: Serve, fake: FakeModel, certificate: dict[str, Any], version: str) -> None:
    """Without chunks, as in HTTP/1.0, how the connection ends is all that a client has to go by."""
    if shutil.which("curl") is None:
        pytest.skip("CURL DID NOT RUN AGAINST TLS: the curl command is not installed")
    fake.script(head(), chunk(SPOKEN_CHAT.prelude + SPOKEN_CHAT.token), rst())
    edge = await serve(server=certificate)
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-N", version, "--cacert", certificate["tls_cert"], f"https://localhost:{edge.port}{CHAT}"),
        *("-H", "Content-Type: application/json", "-d", '{"model":"m","stream":true,"messages":[]}'),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with hang_limit():
        out, err = await process.communicate()
    assert b'"tok"' in out
    assert b"upstream_cut" in out
    assert process.returncode in (18, 56), err  # a part is missing; the connection failed while it was read


async def test_a_slow_reader_pauses_the_upstream_and_loses_nothing(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any]
) -> None:
    tokens = b"".join(chat_token(f"{number:08}") for number in range(60_000))
    fake.script(head(), chunk(chat_role()), chunk(tokens, every=64 * 1024), chunk(SPOKEN_CHAT.ending), end())
    edge = await serve(server=certificate, stream={"buffer_bytes": BUFFER})
    async with TlsClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"00000000")
        written = await fake.requests[0].settled()
        assert written < len(tokens)
        received = bytearray(client.buffer)
        async with hang_limit():
            while not received.endswith(b"\r\n0\r\n\r\n"):
                data = await client.receive()
                assert data, "cut"
                received += data
                client.buffer = b""
    body, clean = dechunk(bytes(received).partition(b"\r\n\r\n")[2])
    assert clean
    start = body.index(b"data: ", len(chat_role()))
    assert hashlib.sha256(body[start : start + len(tokens)]).digest() == hashlib.sha256(tokens).digest()
    record = await edge.record()
    assert (record["outcome"], record["pauses"] > 0) == ("complete", True)
    assert record["client_blocked_s"] > 0


async def test_a_reader_that_has_stopped_is_cut(serve: Serve, fake: FakeModel, certificate: dict[str, Any]) -> None:
    tokens = b"".join(chat_token(f"{number:08}") for number in range(60_000))
    fake.script(head(), chunk(chat_role()), chunk(tokens, every=64 * 1024), gate("never"))
    edge = await serve(server=certificate, stream={"buffer_bytes": BUFFER, "client_stall_s": 0.3})
    async with TlsClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        assert (await edge.record())["outcome"] == "client_stall"
        assert (await client.ending(), client.farewell) == ("reset", False)


async def test_a_reader_that_leaves_stops_the_model(serve: Serve, fake: FakeModel, certificate: dict[str, Any]) -> None:
    fake.script(head(), chunk(SPOKEN_CHAT.prelude + SPOKEN_CHAT.token), gate("never"))
    edge = await serve(server=certificate)
    async with TlsClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b'"tok"')
    assert (await edge.record())["outcome"] == "client_gone"
    async with hang_limit():
        await fake.requests[0].left()


async def test_a_body_larger_than_any_buffer_arrives(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any]
) -> None:
    fake.script(*chat_answer(["a"]))
    edge = await serve(server=certificate)
    text = "x" * 3_000_000
    async with TlsClient(edge.port) as client:
        await client.post(CHAT, chat_body(user=text))
        assert (await client.answer()).status == 200
    assert text in fake.requests[0].body.decode()


# --- handshakes -----------------------------------------------------------------------------------------------------


async def test_older_versions_are_refused(serve: Serve, certificate: dict[str, Any]) -> None:
    edge = await serve(server=certificate)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", edge.port, ssl=old)
    assert (await edge.lines.wait("refused"))[0]["error"] == "tls_handshake"


async def test_tls_1_2_is_spoken(serve: Serve, certificate: dict[str, Any]) -> None:
    edge = await serve(server=certificate)
    old = ssl.create_default_context(cafile=certificate["tls_cert"])
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    reader, writer = await asyncio.open_connection("localhost", edge.port, ssl=old, family=socket.AF_INET)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 200")
    writer.close()
    await writer.wait_closed()


async def test_plain_http_is_told_that_this_is_tls(serve: Serve, certificate: dict[str, Any]) -> None:
    edge = await serve(server=certificate)
    async with RawClient(edge.port) as client:
        await client.get("/health")
        answer = await client.answer()
    assert (answer.status, answer.body) == (400, b"This port speaks TLS: use https://\n")
    (line,) = await edge.lines.wait("refused")
    assert (line["error"], line["reason"], line["client"]) == ("tls_handshake", "HTTP_REQUEST", "127.0.0.1")


async def test_a_handshake_that_stops_is_given_up(
    serve: Serve, certificate: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.api.tls_layer._HANDSHAKE_S", 0.1)
    edge = await serve(server=certificate)
    async with RawClient(edge.port) as client:
        await client.send(b"\x16\x03\x01")  # a client's hello would go on
        assert await client.ending() == "eof"
    (line,) = await edge.lines.wait("refused")
    assert line["reason"] == "it took too long"


async def test_handshakes_are_bounded(serve: Serve, certificate: dict[str, Any]) -> None:
    """As connections are, with a few to spare; one beyond is closed at once, and when one has ended there is room."""
    edge = await serve(server={**certificate, "max_connections": 1})
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(1 + 16)]
        async with RawClient(edge.port) as beyond:
            assert await beyond.ending() == "eof"
        await silent[0].send(b"no TLS at all")
        await silent[0].ending()
        async with TlsClient(edge.port) as client:
            await client.get("/health")
            assert (await client.answer()).status == 200


async def test_a_half_closed_stream_is_not_said_to_be_whole(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any]
) -> None:
    """To HTTP/1.0 a farewell is all that tells an end from a cut."""
    fake.script(head(), chunk(SPOKEN_CHAT.prelude + SPOKEN_CHAT.token), gate("never"))
    edge = await serve(server=certificate)
    async with TlsClient(edge.port) as client:
        await client.post(CHAT, chat_body(), version="1.0")
        await client.until(b'"tok"')
        client.half_close()
        await client.ending()
        assert not client.farewell
    assert (await edge.record())["outcome"] == "client_gone"


async def test_connections_are_bounded_and_the_refusal_can_be_read(serve: Serve, certificate: dict[str, Any]) -> None:
    edge = await serve(server={**certificate, "max_connections": 1})
    async with TlsClient(edge.port) as first, TlsClient(edge.port) as second:
        await first.get("/health")
        assert (await first.answer()).status == 200
        answer = await second.answer()
        assert (answer.status, answer.json["error"]["code"]) == (503, "server_is_overloaded")


# --- the certificate ------------------------------------------------------------------------------------------------


async def shown(edge: Running) -> bytes:
    """The certificate that a new connection is shown."""
    async with TlsClient(edge.port) as client:
        der = client.tls.getpeercert(binary_form=True)
        assert der is not None
        return der


async def test_a_new_certificate_is_shown_to_new_connections_only(
    serve: Serve, fake: FakeModel, certificate: dict[str, Any], tmp_path: Path
) -> None:
    fake.script(head(), chunk(SPOKEN_CHAT.prelude + SPOKEN_CHAT.token), gate("rest"), chunk(SPOKEN_CHAT.ending), end())
    edge = await serve(server=certificate)
    before = await shown(edge)
    async with TlsClient(edge.port) as running:
        await running.post(CHAT, chat_body())
        await running.until(b'"tok"')
        make_certificate(tmp_path)
        assert await shown(edge) == before
        edge.edge.listener.reload_tls()
        assert await shown(edge) != before
        fake.open("rest")
        assert (await running.answer()).clean


async def test_a_broken_certificate_is_refused_whole(serve: Serve, certificate: dict[str, Any], tmp_path: Path) -> None:
    edge = await serve(server=certificate)
    before = await shown(edge)
    other = make_certificate(tmp_path, "other")
    Path(certificate["tls_cert"]).write_bytes(Path(other["tls_cert"]).read_bytes())  # noqa: ASYNC240 - a small file
    with pytest.raises(OSError, match=r"the key of server.tls_key is not the one"):
        edge.edge.listener.reload_tls()
    assert await shown(edge) == before


async def test_without_tls_there_is_nothing_to_reload(serve: Serve) -> None:
    edge = await serve()
    edge.edge.listener.reload_tls()
    async with RawClient(edge.port) as client:
        await client.get("/health")
        assert (await client.answer()).status == 200
