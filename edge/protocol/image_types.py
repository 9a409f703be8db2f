"""What kind of image some bytes are, whatever somebody has called them.

In: the base64 text of an image. Out: its media type, if it is known. Must not: decode more than its first bytes.
"""

import binascii

_HEAD_CHARS = 16  # of base64: 12 bytes
_LOOKED_AT_CHARS = 64  # line ends included
_STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def image_type(data: str) -> str | None:
    """The media type that the first bytes show; None if it is none of those that models take everywhere."""
    head = "".join(data[:_LOOKED_AT_CHARS].split())[:_HEAD_CHARS]
    try:
        begun = binascii.a2b_base64(head[: len(head) // 4 * 4])
    except ValueError:
        return None
    if begun.startswith(b"RIFF") and begun[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _STARTS.items() if begun.startswith(start)), None)
