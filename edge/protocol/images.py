"""Images in requests: by URL or as data, and of which kind, whatever somebody has called them.

In: a URL, or the base64 text of an image. Out: an ``ImagePart``; its URL; its media type, if it is known. Must not:
decode more than an image's first bytes.
"""

import binascii
import re

from edge.protocol.canonical import (
    ImagePart,
)

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


_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+)?(?:;[^,]*)?;base64,", re.ASCII)


def image_of(url: str) -> ImagePart:
    """An image by its URL; what a data URL holds is taken out of it."""
    match = _DATA_URL.match(url)
    if match is None:
        return ImagePart(url=url)
    data = url[match.end() :]
    return ImagePart(match[1] or image_type(data) or "image/png", data)


def url_of(image: ImagePart) -> str:
    """The URL for an image."""
    return image.url or f"data:{image.media_type};base64,{image.data}"
