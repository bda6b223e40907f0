"""
The table as a picture: an SVG of bars that is readable on a light and on a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.clients import CLIENTS, OURS
from benchmarks.report import figure
from benchmarks.workloads import WORKLOADS

__all__ = ["PANELS", "picture"]

PANELS: tuple[tuple[str, str], ...] = (
    ("burst64", "stream, 64 events a write: CPU per delta"),
    ("trickle", "one event a packet, 200 streams: CPU per delta"),
    ("helper", "stream helper with accumulation: CPU per delta"),
    ("final", "300 streams read for nothing but their end: CPU per delta"),
    ("small", "small call: CPU"),
    ("paced300", "300 streams × 50 tokens/s: p99 gap above 20 ms"),
    ("fair", "16 streams at full speed: worst delay of another task"),
    ("many", "1,000 streams open: memory each"),
    ("import", "import: CPU"),
)
"""Which workloads are drawn, and the heading of each."""

_WIDTH, _COLUMNS, _LEFT, _RIGHT, _ROW, _HEAD, _TOP = 1000, 2, 140, 84, 19, 36, 30

# One sheet for both themes: an <img> in a README follows the reader's preference through the media query.
_STYLE = """
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.head { font-weight: 600; font-size: 14px }
.note { fill: #59636e }
.ours { fill: #0969da }
.hand { fill: #8c959f }
.other { fill: #d4a72c }
.name-ours { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note { fill: #9198a1 }
  .ours { fill: #4493f8 }
  .hand { fill: #656c76 }
  .other { fill: #d29922 }
}
""".strip()


def _length(value: float, low: float, high: float, room: float) -> float:
    """Pixels of a bar on a logarithmic scale whose left end is half of the smallest value above zero."""
    if value <= 0:
        return 2.0
    left = math.log10(low / 2)
    return room * (math.log10(value) - left) / (math.log10(high) - left)


def picture(
    table: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]],
    panels: Sequence[tuple[str, str]] = PANELS,
) -> str:
    """
    An SVG document: a panel for each workload that was run, a bar for each client, the shortest first.

    Bars are on a logarithmic scale (it says so), because ours and the slowest differ by more than a hundred. Values of
    zero and below, which a gap between tokens can have, are drawn as a sliver.
    """
    column = _WIDTH // _COLUMNS
    room = column - _LEFT - _RIGHT
    body: list[str] = []
    tops = [float(_TOP)] * _COLUMNS
    for name, heading in panels:
        metric = WORKLOADS[name].metric
        rows = {
            client: metrics[metric]["median"]
            for client, metrics in table.get(name, {}).items()
            if metric in metrics and client in CLIENTS
        }
        if not rows:
            continue
        least = min((value for value in rows.values() if value > 0), default=1.0)
        rows = dict(sorted(rows.items(), key=lambda row: row[1]))
        highest = max(*rows.values(), least * 2)
        which = tops.index(min(tops))  # a panel goes where there is most room
        top, left = tops[which] + _HEAD, which * column
        body.append(f'<text class="head" x="{left + 12}" y="{top - 8:.0f}">{escape(heading)}</text>')
        for client, value in rows.items():
            kind = "ours" if client.startswith(OURS) else "hand" if _by_hand(client) else "other"
            length = _length(value, least, highest, room)
            bar, line = left + _LEFT, f"{top + 13:.0f}"
            body.append(
                f'<text class="name-{kind}" x="{bar - 8}" y="{line}" text-anchor="end">{escape(client)}</text>'
                f'<rect class="{kind}" x="{bar}" y="{top + 3:.0f}" width="{length:.1f}" height="13" rx="2"/>'
                f'<text class="name-{kind}" x="{bar + length + 6:.1f}" y="{line}">{escape(figure(value, metric))}</text>'
            )
            top += _ROW
        tops[which] = top
    height = max(tops) + 16
    key = (
        '<text class="note" x="12" y="20">Shorter is better; logarithmic scale. Blue: kimi-async. Grey: written by hand, '
        "with no retry, timeout or error handling. Yellow: other SDKs.</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label="Benchmarks of kimi-async and other clients">\n'
        f"<style>{_STYLE}</style>\n{key}\n" + "\n".join(body) + "\n</svg>\n"
    )


def _by_hand(client: str) -> bool:
    return CLIENTS[client].__module__.endswith("by_hand")
