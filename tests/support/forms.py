"""Multipart forms with a file in them, as the SDKs and curl send them."""

import asyncio
from array import array

from support.raw import RawClient

TRANSCRIPTIONS = "/v1/audio/transcriptions"

BOUNDARY = "form-0123456789"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def field(name: str, value: str) -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file(data: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    return head.encode() + b"Content-Type: audio/wav\r\n\r\n" + data + b"\r\n"


LAST = f"--{BOUNDARY}--\r\n".encode()


def form(audio: bytes = b"RIFF" * 100, model: str | None = "m", **fields: str) -> bytes:
    """The model first, as openai-python has it."""
    named = {**({} if model is None else {"model": model}), **fields}
    return b"".join(field(name, value) for name, value in named.items()) + file(audio) + LAST


def noise(size: int) -> bytes:
    """Bytes that are all different in their places, without a delimiter among them: numbers, eight digits each."""
    return array("I", range(size // 8)).tobytes().hex().encode()


async def begin(client: RawClient, length: int | None) -> None:
    """The head of a request alone."""
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = {"Host": "localhost", **FORM, **framing}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    await client.send(f"POST {TRANSCRIPTIONS} HTTP/1.1\r\n{text}\r\n".encode())


async def pour(client: RawClient, data: bytes) -> asyncio.Task[None]:
    """Send in the background, as fast as it is taken."""
    return asyncio.create_task(asyncio.get_running_loop().sock_sendall(client.sock, data))


def first_part() -> bytes:
    """Up to where the audio begins."""
    return field("model", "m") + file(b"")[:-2]


async def taken() -> None:
    """Wait until no kernel takes any more of what is poured."""
    await asyncio.sleep(0.5)  # only time can show that nothing happens
