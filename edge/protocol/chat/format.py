"""What Edge says in chat completions and legacy completions: OpenAI's shape, ended by ``[DONE]``.

In, out, must not: see ``protocol.surface_format``.
"""

from edge.protocol.sse import DONE
from edge.protocol.surface_format import SurfaceFormat


class ChatFormat(SurfaceFormat):
    """A ``SurfaceFormat`` of ``data:`` lines."""

    __slots__ = ()

    terminator = DONE
