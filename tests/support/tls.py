"""Certificates that are made for a test run, and a raw client that speaks TLS and tells how a connection ended.

In: directories, ports. Out: files; a ``RawClient`` in all but its bytes. Must not: verify more than a test asks for.
"""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from support.hanging import hang_limit
from support.raw import LIMIT_S, RawClient


def make_certificate(directory: Path, name: str = "edge") -> dict[str, Any]:
    """A new certificate for localhost and its key, as settings of ``server``; a second call replaces the files."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
        *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return {"tls_cert": str(certificate), "tls_key": str(key)}


def with_passphrase(key: str) -> str:
    """A copy of a key that nobody can read without being asked."""
    locked = f"{key}.locked"
    _openssl("ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked)
    return locked


def _openssl(*args: str) -> None:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("TLS TESTS DID NOT RUN: the openssl command is not installed")
    subprocess.run([command, *args], check=True, capture_output=True)  # noqa: S603 - the arguments are ours


class TlsClient(RawClient):
    """A ``RawClient`` over TLS.

    Attributes:
        farewell: The server has said that nothing is missing (close_notify).
    """

    def __init__(self, port: int, receive_buffer: int | None = None, *, trust: str | None = None) -> None:
        super().__init__(port, receive_buffer)
        context = ssl.create_default_context(cafile=trust)
        if trust is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self.farewell = False

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self._shake()
        except BaseException:
            self.sock.close()
            raise
        return self

    async def _shake(self) -> None:
        async with hang_limit():
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                    if not data:
                        raise ConnectionResetError("the server ended the handshake") from None
                    self._in.write(data)
                else:
                    return await self._flush()

    async def _flush(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self._out.read())

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        async with hang_limit():
            await self._flush()

    async def receive(self, timeout_s: float = LIMIT_S) -> bytes:
        """As a plain client: empty at the end, whether with a farewell or not."""
        async with hang_limit(timeout_s):
            while True:
                try:
                    data = self.tls.read(65536)
                except ssl.SSLWantReadError:
                    received = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                    if not received:
                        return b""
                    self._in.write(received)
                else:
                    self.farewell = not data
                    self.received += data
                    return data
