"""The picture of the documentation: two rows of bars, drawn as SVG by these few lines.

It shows for each server what one delivery costs beside the C loop's, and what a subscriber costs in
memory, and takes both from the results of a run.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from bench.results import Results
from bench.table import shown

_WIDTH, _ROW, _LABEL, _BAR = 760, 26, 190, 460
_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.bar { fill: #9aa4b2; }
.ours { fill: #1f6feb; }
.line { stroke: #24292f; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .line { stroke: #e6edf3; }
}
"""


def picture(results: Results) -> str:
    """Return the picture; panels whose bench was not run are left out."""
    parts: list[str] = []
    top = 0
    for title, bars, mark in _panels(results):
        parts += _panel(title, bars, mark, top)
        top += _ROW * (len(bars) + 2)
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    name = "<title>What a delivery and a subscriber cost</title>"
    return "\n".join([head, name, f"<style>{_STYLE}</style>", *parts, "</svg>", ""])


def write(results: Results, file: Path) -> None:
    """Write the picture to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(picture(results))


def _panels(results: Results) -> list[tuple[str, list[tuple[str, float]], float | None]]:
    panels: list[tuple[str, list[tuple[str, float]], float | None]] = []
    column = next((c for c in results.columns("fanout") if c.endswith("/s: x loop")), "")
    cost = _bars(results, "fanout", column)
    if cost:
        rate = column.partition("/s")[0]
        panels.append((f"Cost of a delivery at {rate} a second, times the C loop's", cost, 1.0))
    memory = _bars(results, "memory", "KB each")
    if memory:
        panels.append(("Memory of an idle subscriber, KB", memory, None))
    return panels


def _bars(results: Results, bench: str, column: str) -> list[tuple[str, float]]:
    found = ((row, results.median(bench, row, column)) for row in results.figures.get(bench, {}))
    return sorted(((row, value) for row, value in found if value is not None), key=lambda b: b[1])


def _panel(title: str, bars: list[tuple[str, float]], mark: float | None, top: int) -> list[str]:
    scale = _BAR / (max(value for _, value in bars) or 1)
    parts = [f'<text class="title" x="8" y="{top + 20}">{escape(title)}</text>']
    for number, (name, value) in enumerate(bars, 1):
        y = top + number * _ROW + 4
        width = max(1.0, value * scale)
        kind = "bar ours" if name.startswith("ssekit") else "bar"
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_ROW - 6}"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 15}">{escape(shown(value))}</text>',
        ]
    if mark is not None:
        x, first, last = _LABEL + mark * scale, top + _ROW, top + (len(bars) + 1) * _ROW
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{first}" y2="{last}"/>')
    return parts
