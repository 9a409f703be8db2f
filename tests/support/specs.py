"""What can be translated, by surface: out of the one table of dialects."""

from collections.abc import Callable

from edge.protocol.dialects import SPECS
from edge.protocol.surface import Surface
from edge.protocol.transcode_ports import Answering, Decoder, Encoder

DECODERS: dict[Surface, Callable[[], Decoder]] = {s: spec.decoder for s, spec in SPECS.items() if spec.decoder}
ENCODERS: dict[Surface, Callable[[Answering], Encoder]] = {s: spec.encoder for s, spec in SPECS.items() if spec.encoder}
