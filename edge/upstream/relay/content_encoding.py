"""Answers that come compressed though Edge asks for ``identity``: some CDN nodes and caches send nothing else.

In: a body by network reads, compressed. Out: the same body for whoever takes it, plain. Must not: hold what has been
decompressed, or let a small read grow without bound.
"""

import zlib

from typing_extensions import override

from edge.errors import AnswerTooLarge, EdgeError, UpstreamBroken
from edge.policy.lifecycle import LifecycleEvent
from edge.upstream.relay.bodies import Body, End

READABLE = frozenset({"gzip", "x-gzip", "deflate"})
_PIECE_BYTES = 64 * 1024
_ANY_HEADER = zlib.MAX_WBITS | 32  # gzip's or zlib's
_GZIP_MAGIC = b"\x1f"
_NO_HEADER = -zlib.MAX_WBITS  # what some servers call deflate


class Inflating(Body):
    """Takes one compressed body.

    Args:
        name: Of the upstream.
        most_bytes: What one network read may become.
        end: Ends the call.

    Attributes:
        body: Takes what comes out.
    """

    __slots__ = ("_end", "_inflater", "_most", "_name", "_over", "_raw", "body")

    def __init__(self, name: str, most_bytes: int, end: End) -> None:
        self.body: Body | None = None
        self._name = name
        self._most = most_bytes
        self._end = end
        self._over = False
        self._raw = b""  # of the first bytes, as long as it is not clear that they have a header
        self._inflater = zlib.decompressobj(_ANY_HEADER)

    def use(self, body: Body) -> None:
        """From now on this body takes what comes out."""
        self.body = body

    def ended(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """For the body that takes what comes out: end the call."""
        self._over = True
        self._end(happened, error)

    @override
    def on_bytes(self, data: bytes) -> None:
        size = 0
        while data and not self._over and self.body is not None:
            try:
                plain, data = self._inflated(data)
            except zlib.error:
                self._broken()
                return
            size += len(plain)
            if size > self._most:
                what = f"upstream {self._name} sent compressed bytes that become over {self._most} bytes at once"
                self.ended(LifecycleEvent.ERROR, AnswerTooLarge(f"{what}; stream.max_answer_bytes is the bound"))
            elif plain:
                self.body.on_bytes(plain)

    @override
    def whole(self) -> None:
        if self.body is None or self._over:
            return
        if self._inflater.eof or not self._raw:
            self.body.whole()
        else:
            self.body.broke("its compression ended too early")

    @override
    def broke(self, why: str) -> None:
        if self.body is not None and not self._over:
            self.body.broke(why)

    def _inflated(self, data: bytes) -> tuple[bytes, bytes]:
        """The next piece, and what is left of the compressed bytes."""
        if self._inflater.eof:  # gzip may have several members, and then padding
            if not data.startswith(_GZIP_MAGIC):
                return b"", b""
            self._inflater = zlib.decompressobj(_ANY_HEADER)
        first, self._raw = not self._raw, self._raw or data[:1]
        try:
            plain = self._inflater.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if not first:
                raise
            self._inflater = zlib.decompressobj(_NO_HEADER)
            plain = self._inflater.decompress(data, _PIECE_BYTES)
        return plain, self._inflater.unconsumed_tail or self._inflater.unused_data

    def _broken(self) -> None:
        self.ended(
            LifecycleEvent.ERROR, UpstreamBroken(f"upstream {self._name} sent an answer whose compression is broken")
        )


def inflated(data: bytes, most_bytes: int) -> bytes | None:
    """A whole compressed body, plain; None if it is broken or over the bound."""
    for wbits in (_ANY_HEADER, _NO_HEADER):
        inflater = zlib.decompressobj(wbits)
        try:
            plain = inflater.decompress(data, most_bytes + 1)
        except zlib.error:
            continue
        return plain if inflater.eof and len(plain) <= most_bytes else None
    return None
