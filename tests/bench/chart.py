"""A chart for the README: one panel per scenario, one bar per peer.

In: results. Out: SVG. Must not: measure, or hide a bar that does not fit: it is cut visibly and its number stands
beside it.
"""

from collections.abc import Mapping
from html import escape

from figures import Measured, Results

_PANELS = (
    ("S1", "us_per_token", "CPU µs per token", "200 streams at 50 tokens/s"),
    ("S1a", "us_per_token", "CPU µs per token", "the same, ticking together"),
    ("S2x16", "us_per_token", "CPU µs per token", "64 at full speed, 16 per write"),
    ("S3", "kb_per_stream", "KB per stream", "2,000 streams"),
    ("S4", "us_per_request", "CPU µs per request", "small requests, 32 at once"),
    ("S5", "growth_mb", "MB of growth", "20 readers that stop"),
)
_COLUMNS = 3
_WIDTH, _GAP, _LABEL, _BAR, _VALUE = 300, 24, 82, 150, 60
_ROW, _HEAD = 20, 50
_CUT = 3.0  # a bar ends at so many times the longest of the proxies that it is fair to draw to scale
_SCALE = ("nginx", "plain", "edge")
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 } .sub { fill: #57606a; font-size: 11px }
.bar { fill: #8c959f } .edge { fill: #0969da } .cut { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .sub { fill: #9198a1 } .bar { fill: #6e7681 } .edge { fill: #4493f8 } .cut { fill: #0d1117 }
}
"""


def draw(results: Results) -> str:
    """The whole chart; panels of what was not measured are left out."""
    panels = [
        (title, f"{name}: {sub}", bars)
        for name, key, title, sub in _PANELS
        if (bars := _bars(results.get(name, {}), key))
    ]
    rows = max((len(bars) for _, _, bars in panels), default=0)
    height_each = _HEAD + rows * _ROW + _GAP
    lines = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + _GAP), max(1, lines) * height_each
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    label = 'role="img" aria-label="What a relayed token costs, by proxy; shorter is better"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>', f"<style>{_STYLE}</style>"]
    for number, (title, sub, bars) in enumerate(panels):
        x, y = number % _COLUMNS * (_WIDTH + _GAP), number // _COLUMNS * height_each
        parts.append(f'<g transform="translate({x} {y})">{_panel(title, sub, bars)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _bars(peers: Mapping[str, Measured], key: str) -> dict[str, float]:
    return {peer: spread.median for peer, measured in peers.items() if (spread := measured.spread(key))}


def _panel(title: str, sub: str, bars: Mapping[str, float]) -> str:
    fair = [value for peer, value in bars.items() if peer in _SCALE] or list(bars.values())
    full = min(max(bars.values()), _CUT * max(fair)) or 1.0
    parts = [f'<text class="title" y="14">{escape(title)}</text><text class="sub" y="30">{escape(sub)}</text>']
    for row, (peer, value) in enumerate(bars.items()):
        y = _HEAD - 10 + row * _ROW
        length = max(1.0, min(value / full, 1.0) * _BAR)
        kind = "edge" if peer == "edge" else "bar"
        parts.append(f'<text x="{_LABEL - 6}" y="{y + 11}" text-anchor="end">{escape(peer)}</text>')
        parts.append(f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{length:.1f}" height="14" rx="2"/>')
        if value > full:
            slash = f"M{_LABEL + _BAR - 16} {y + 16}l6 -18h4l-6 18z"
            parts.append(f'<path class="cut" d="{slash}"/>')
        parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 11}">{_number(value)}</text>')
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
