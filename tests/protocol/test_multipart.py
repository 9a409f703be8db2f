"""A form's boundary and its model, found in what has come so far, wherever that is cut."""

import pytest
from support.forms import BOUNDARY, LAST, field, file, form

from edge.errors import BadRequest, UnsupportedMedia
from edge.protocol.multipart import MOST_LOOKED_AT, Finder, Once, boundary_of, content_type_of

FORMS = {
    "model first": (form(), "m"),
    "file first": (file(b"RIFF") + field("model", "m") + LAST, "m"),
    "no model": (form(model=None), None),
    "two": (field("model", "m") + field("model", "other") + LAST, "m"),
    "preamble": (b"anything\r\n" + form(), "m"),
    "a file that looks like it": (file(field("model", "other")[4:]) + field("model", "m") + LAST, "m"),
    "empty": (field("model", "") + LAST, ""),
    "not in ascii": (field("model", "模型") + LAST, "模型"),
    "lines in it": (field("model", "a\r\nb") + LAST, "a\r\nb"),
    "another field named like it": (field("models", "x") + field("xmodel", "y") + field("model", "m") + LAST, "m"),
    "no quotes": (form(model=None).replace(b'name="file"; ', b"name=model; "), "RIFF" * 100),
    "headers in other case": (form().replace(b"Content-Disposition", b"content-DISPOSITION"), "m"),
    "spaces after the delimiter": (form().replace(BOUNDARY.encode() + b"\r\n", BOUNDARY.encode() + b" \t\r\n"), "m"),
    "no form at all": (b"\x00\xff" * 100, None),
    "no headers": (f"--{BOUNDARY}\r\n\r\nm\r\n".encode() + field("model", "m") + LAST, "m"),
    "never closed": (field("model", "m")[:-2], None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_model_is_found_wherever_the_form_is_cut(name: str) -> None:
    body, model = FORMS[name]
    for at in range(len(body) + 1):
        finder = Finder(BOUNDARY, "model")
        finder.feed(body[:at])
        finder.feed(body[at:])
        assert finder.value == model, at
    finder = Finder(BOUNDARY, "model")
    for at in range(len(body)):
        finder.feed(body[at : at + 1])
    assert finder.value == model


def test_it_is_settled_as_soon_as_the_model_is_there() -> None:
    finder = Finder(BOUNDARY, "model")
    finder.feed(field("model", "m"))
    assert not finder.settled  # it may go on
    finder.feed(file(b"RIFF")[: len(BOUNDARY) + 2])
    assert finder.settled


def test_it_looks_no_further_than_its_bound() -> None:
    finder = Finder(BOUNDARY, "model")
    finder.feed(file(b"x" * MOST_LOOKED_AT) + field("model", "m") + LAST)
    assert (finder.value, finder.settled) == (None, True)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("multipart/form-data; boundary=abc", "multipart/form-data; boundary=abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="abc"', "multipart/form-data; boundary=abc"),
        ('multipart/form-data; boundary="a b:c"', 'multipart/form-data; boundary="a b:c"'),
        (
            "multipart/form-data;boundary=----WebKitFormBoundaryX",
            "multipart/form-data; boundary=----WebKitFormBoundaryX",
        ),
    ],
)
def test_the_content_type_is_made_anew(given: str, made: str) -> None:
    assert content_type_of(boundary_of(given)) == made


@pytest.mark.parametrize("given", ["", "application/json", "multipart/mixed; boundary=abc", "text/plain; boundary=abc"])
def test_what_is_no_form_is_refused(given: str) -> None:
    with pytest.raises(UnsupportedMedia, match="multipart/form-data"):
        boundary_of(given)


@pytest.mark.parametrize("boundary", ["", '""', '"a\\"b"', "a" * 71, "ä", '"a;b"', '"a\x00b"'])
def test_a_boundary_that_cannot_be_one_is_refused(boundary: str) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        boundary_of(f"multipart/form-data; boundary={boundary}")


def part(head: str, value: str = "other", end: str = "\r\n") -> bytes:
    return f"--{BOUNDARY}{end}{head}{end}{end}{value}{end}".encode()


DISPOSITION = "Content-Disposition: form-data; name"
TWICE = {
    "after the file": form()[: -len(LAST)] + field("model", "other") + LAST,
    "at once": field("model", "m") + field("model", "m") + LAST,
    "without quotes": form()[: -len(LAST)] + part(f"{DISPOSITION}=model") + LAST,
    "in single quotes": form()[: -len(LAST)] + part(f"{DISPOSITION}='model'") + LAST,
    "in other case": form()[: -len(LAST)] + part(f'{DISPOSITION.upper()}="MODEL"') + LAST,
    "escaped": form()[: -len(LAST)] + part(f'{DISPOSITION}="mo\\del"') + LAST,
    "with a character set": form()[: -len(LAST)] + part(f"{DISPOSITION}*=utf-8''model") + LAST,
    "with bare line ends": form()[: -len(LAST)] + part(f'{DISPOSITION}="model"', end="\n") + LAST,
    "after the end": form() + field("model", "other") + LAST,
    "behind a long head": form()[: -len(LAST)] + part(f'X: {"x" * 20_000}\r\n{DISPOSITION}="model"') + LAST,
}
ONCE = {name: body for name, (body, _) in FORMS.items() if name not in ("two", "a file that looks like it")}
ONCE["a large file with it in the text"] = form(b'name="model"' * 10_000)


@pytest.mark.parametrize("step", [1, 7, 64, 10**6])
@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
def test_a_second_field_is_seen_however_it_is_written(body: bytes, step: int) -> None:
    with pytest.raises(BadRequest):
        watch(body, step)


@pytest.mark.parametrize("step", [1, 7, 64, 10**6])
@pytest.mark.parametrize("body", ONCE.values(), ids=ONCE)
def test_a_field_that_is_there_once_is_not_held_against_anybody(body: bytes, step: int) -> None:
    watch(body, step)


def watch(body: bytes, step: int) -> None:
    once = Once(BOUNDARY, "model")
    for at in range(0, len(body), step):
        once.feed(body[at : at + step])
        assert len(once._held) <= 17_000
