"""What Edge itself says to clients of the toy dialect."""

from edge.errors import EdgeError
from edge.protocol.json_text import dumps
from edge.protocol.sse import encode
from edge.protocol.surface_format import Progress, SurfaceFormat


class ToyFormat(SurfaceFormat):
    """Errors are one word under ``oops``."""

    __slots__ = ()
    terminator = b'data: {"end":true}\n\n'

    def error(self, error: EdgeError, progress: Progress) -> bytes:
        """The error in a stream."""
        return encode({"oops": error.message})

    def error_body(self, error: EdgeError) -> bytes:
        """The error as a body."""
        return dumps({"oops": error.message})
