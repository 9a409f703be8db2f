"""Forms that are made to break whoever looks into them: each gets an answer of its own kind, and none is a failure."""

import pytest
from fakes.model_server import FakeModel, json_answer
from support.forms import BOUNDARY, FORM, TRANSCRIPTIONS, field, file, form
from support.raw import ask
from support.running import Serve

LAST = f"--{BOUNDARY}--\r\n".encode()
TRICKS: dict[str, bytes] = {
    "empty": b"",
    "only the end": LAST,
    "no end": field("model", "m") + file(b"x"),
    "ten thousand parts": field("a", "b") * 10_000 + form(),
    "a name of a megabyte": field("a" * 1_000_000, "b") + form(),
    "a header of a megabyte": form().replace(b"audio/wav", b"a" * 1_000_000),
    "the model twice": field("model", "m") + field("model", "other") + form(model=None),
    "a delimiter in the file": form(f"--{BOUNDARY}x\r\n".encode() * 1000),
    "a form in the file": form(form()),
    "a path for a name": form().replace(b"a.wav", b"../../../etc/passwd"),
    "a line end in a name": form().replace(b"a.wav", b'a"\r\nX-Injected: 1\r\n"'),
    "zeros": b"\x00" * 100_000,
    "no disposition": f"--{BOUNDARY}\r\n\r\nm\r\n".encode() + form(),
    "a charset of its own": field("_charset_", "utf-7") + form(),
    "what follows the end": form() + b"x" * 100_000,
}


@pytest.mark.parametrize("trick", TRICKS)
async def test_a_form_is_passed_on_as_it_is_or_refused(serve: Serve, fake: FakeModel, trick: str) -> None:
    edge = await serve(upstream={"relay": [TRANSCRIPTIONS]})
    fake.script(*json_answer({"text": "hi"}))
    answer = await ask(edge.port, TRANSCRIPTIONS, TRICKS[trick], FORM, timeout_s=120)
    assert answer.status in (200, 400, 404, 413), answer.body
    if answer.status == 200:
        assert fake.requests[0].body == TRICKS[trick]
    fake.script(*json_answer({"text": "hi"}))
    assert (await ask(edge.port, TRANSCRIPTIONS, form(), FORM, timeout_s=120)).status == 200


@pytest.mark.parametrize(
    "boundary", ["", '""', "a" * 71, "a\\", "a b", "é", '"', "--", "=_?", "a; boundary=b", '"a\\"b"'], ids=ascii
)
async def test_a_boundary_is_taken_or_refused(serve: Serve, fake: FakeModel, boundary: str) -> None:
    edge = await serve(upstream={"relay": [TRANSCRIPTIONS]})
    fake.script(*json_answer({"text": "hi"}))
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert (await ask(edge.port, TRANSCRIPTIONS, form(), kind, timeout_s=120)).status in (200, 400, 404, 415)
