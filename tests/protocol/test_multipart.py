"""A form's boundary and its model, found in what has come so far, wherever that is cut."""

import pytest
from support.forms import BOUNDARY, LAST, field, file, form

from edge.errors import BadRequest, UnsupportedMedia
from edge.protocol.multipart import MOST_LOOKED_AT, Finder, boundary_of, content_type_of

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
