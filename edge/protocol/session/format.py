"""What Edge says in the session API's streams.

In, out, must not: see ``protocol.surface_format``.
"""

from edge.errors import EdgeError
from edge.protocol.sse import encode
from edge.protocol.surface_format import Progress, SurfaceFormat


class SessionFormat(SurfaceFormat):
    """A ``SurfaceFormat`` of named events."""

    __slots__ = ()

    def error(self, error: EdgeError, progress: Progress) -> bytes:
        """What failed, and whether a part of the answer came before."""
        return encode({"message": error.message, "partial": progress.partial}, "error")

    def read(self, before: bytes) -> Progress:
        """A piece of the answer says that it is not the last."""
        return Progress(partial=b'"done":false' in before)
