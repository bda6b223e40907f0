"""
Goodput over time, as a picture that is readable on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["draw"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 800, 300, 50, 40, 34, 170
COLOURS = {"alone": "other", "redis": "ours", "host": "hand"}
NAMES = {"alone": "each learns alone", "redis": "shared through Redis", "host": "shared on one host"}

STYLE = """
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.head { font-weight: 600; font-size: 14px }
.note { fill: #59636e }
line { stroke: #d1d9e0 } .kill { stroke: #cf222e; stroke-dasharray: 2 4 }
polyline { fill: none; stroke-width: 2 }
.ours { stroke: #0969da } .hand { stroke: #8250df } .other { stroke: #bf8700 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .note { fill: #9198a1 } line { stroke: #3d444d }
  .ours { stroke: #4493f8 } .hand { stroke: #ab7df8 } .other { stroke: #d29922 }
}
""".strip()


def draw(results: Sequence[Mapping[str, Any]], window: int = 10, rpm: int = 300) -> str:
    """Requests admitted in the last `window` seconds, as a share of what is allowed; a line for each run, a mark for each kill."""
    seconds = max(len(result["by_second"]) for result in results)

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / seconds

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(share, 1.5) / 1.5

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Goodput over time, alone and shared">',
        f"<style>{STYLE}</style>",
        f'<text class="head" x="{LEFT}" y="18">Goodput of eight processes on 300 requests a minute, one killed every ten seconds</text>',
    ]
    for share in (0.0, 0.5, 1.0, 1.5):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        out.append(
            f'<text class="note" x="{LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for second in range(10, seconds - 2, 10):
        out.append(
            f'<line class="kill" x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        )
    for second in range(0, seconds, 20):
        out.append(
            f'<text class="note" x="{x(second):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{second} s</text>'
        )
    ends: list[float] = []
    for result in results:
        counts = result["by_second"]
        points = []
        for second in range(window, len(counts) + 1):
            share = sum(counts[second - window : second]) / (rpm * window / 60)
            points.append((x(second), y(share)))
        line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        out.append(f'<polyline class="{COLOURS.get(result["what"], "hand")}" points="{line}"/>')
        at = points[-1][1] + 4
        while any(abs(at - other) < 28 for other in ends):
            at += 28
        ends.append(at)
        name = NAMES.get(result["what"], result["what"])
        out.append(f'<text x="{WIDTH - RIGHT + 6}" y="{at:.1f}">{escape(name)}</text>')
        refused = result["refused_per_success"]
        out.append(
            f'<text class="note" x="{WIDTH - RIGHT + 6}" y="{at + 13:.1f}">{result["goodput"]:.1%}, {refused:.3g} refused</text>'
        )
    out.append(
        f'<text class="note" x="{LEFT}" y="{HEIGHT - 4}">Admitted in the last ten seconds, of what is allowed; dashes are kills (kill -9). '
        "At the right: goodput, refusals a success.</text></svg>\n"
    )
    return "\n".join(out)
