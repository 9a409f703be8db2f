"""As much of multipart forms as it takes to pass one on: the boundary, and the value of one field near the beginning.

In: a Content-Type, then a body, cut anywhere. Out: text, or that a field is there twice. Must not: hold a body, or
judge a form by anything else.
Format: RFC 7578, RFC 2046 section 5.1.
"""

import re
from email.parser import BytesHeaderParser
from email.policy import HTTP

from edge.errors import BadRequest, UnsupportedMedia

MOST_LOOKED_AT = 64 * 1024
FORM = "multipart/form-data"

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_MOST_HEAD_BYTES = 16 * 1024  # of a part's own headers
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_TOKEN = re.compile(r"[0-9A-Za-z'+_.-]+")


def boundary_of(content_type: str) -> str:
    """The boundary that a form's Content-Type names.

    Raises:
        UnsupportedMedia: it is no form.
        BadRequest: it has no boundary that could be one.
    """
    head = BytesHeaderParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode("utf-8", "replace"))
    if head.get_content_type() != FORM:
        raise UnsupportedMedia(f"send the request body as Content-Type: {FORM}")
    boundary = head.get_boundary("")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadRequest(f"Content-Type: {FORM} needs a boundary of 1 to 70 characters")
    return boundary


def content_type_of(boundary: str) -> str:
    """The Content-Type of a form, made anew."""
    return f"{FORM}; boundary={boundary}" if _TOKEN.fullmatch(boundary) else f'{FORM}; boundary="{boundary}"'


class Finder:
    """Looks for the first field of a name; what comes after ``MOST_LOOKED_AT`` bytes is not looked at.

    Attributes:
        value: The field's, once it has come whole.
        settled: Nothing that comes can change that.
    """

    def __init__(self, boundary: str, field: str) -> None:
        self.value: str | None = None
        self.settled = False
        self._field = field
        self._mark = b"\r\n--" + boundary.encode()
        self._data = bytearray(b"\r\n")  # before the first mark there is no line end
        self._part: int | None = None  # where the present part begins
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        """Look at what has come."""
        mark, held = self._mark, self._data
        held += data[: max(0, MOST_LOOKED_AT - len(held))]
        while not self.settled and (at := held.find(mark, self._scanned)) >= 0:
            if self._part is not None:
                self._look(bytes(held[self._part : at]))
            self._part = self._scanned = at + len(mark)
        self._scanned = max(self._scanned, len(held) - len(mark) + 1)
        self.settled = self.settled or len(held) >= MOST_LOOKED_AT

    def _look(self, part: bytes) -> None:
        head, found, value = part.partition(b"\r\n\r\n")
        if not found:
            return
        headers = BytesHeaderParser().parsebytes(head.lstrip() + b"\r\n\r\n")
        if headers.get_param("name", header="content-disposition") == self._field:
            self.value = value.decode("utf-8", "replace")
            self.settled = True


class Once:
    """Watches that a whole form has a field only once, however its reader takes forms: the lax reading counts."""

    def __init__(self, boundary: str, field: str) -> None:
        self._mark = b"--" + boundary.encode()
        named = rb"\bname\*?\s*=\s*(?:[\w-]*'[^']*')?[\"']?\s*%b(?![\w.-])" % re.escape(field.encode())
        self._name = re.compile(named, re.IGNORECASE)
        self._field = field
        self._held = b""
        self._in_head = False
        self._seen = False

    def feed(self, data: bytes) -> None:
        """Look at what has come.

        Raises:
            BadRequest: the field is there a second time, or may be.
        """
        held, at = self._held + data, 0
        while True:
            if not self._in_head:
                found = held.find(self._mark, at)
                if found < 0:
                    self._held = held[max(at, len(held) - len(self._mark) + 1) :]
                    return
                at, self._in_head = found + len(self._mark), True
            end = _HEAD_END.search(held, at)
            if end is None and len(held) - at <= _MOST_HEAD_BYTES:
                self._held = held[at:]
                return
            self._look(held[at : len(held) if end is None else end.start()])
            at, self._in_head = len(held) if end is None else end.start(), False

    def _look(self, head: bytes) -> None:
        if len(head) > _MOST_HEAD_BYTES:
            raise BadRequest("a part of the form has too long a head")
        if self._name.search(head.replace(b"\\", b"")):
            if self._seen:
                raise BadRequest(f"{self._field}: must be in the form only once", param=self._field)
            self._seen = True
