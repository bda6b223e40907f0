"""
Goodput and refusals over time, as an SVG that is readable on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.limits.experiments import Measured

__all__ = ["drawing"]

_WIDTH, _LEFT, _PANEL, _GAP, _TOP = 860, 190, 74, 16, 62

_STYLE = """
text { font: 12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.head { font-weight: 600; font-size: 15px }
.note { fill: #59636e }
.axis { stroke: #d1d9e0 }
.allowed { stroke: #59636e; stroke-dasharray: 3 3 }
.good { fill: #0969da }
.bad { fill: #cf222e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .note { fill: #9198a1 }
  .axis { stroke: #3d444d }
  .allowed { stroke: #9198a1 }
  .good { fill: #4493f8 }
  .bad { fill: #f85149 }
}
""".strip()


def drawing(title: str, runs: Sequence[Measured], duration: float, rate: float, step: float = 10.0) -> str:
    """
    One panel a client: a bar for every `step` seconds, admitted (blue) above refused (red, downwards). `rate` is what is
    allowed in a minute, the dashed line.
    """
    count = int(duration / step)
    room = _WIDTH - _LEFT - 20
    bar = room / count
    height = _TOP + len(runs) * (_PANEL + _GAP) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="head" x="16" y="24">{escape(title)}</text>',
        f'<text class="note" x="16" y="44">requests in {step:g} s: admitted upwards, refused downwards; dashed: what is allowed</text>',
    ]
    allowed = rate * step / 60
    for number, run in enumerate(runs):
        top = _TOP + number * (_PANEL + _GAP)
        base = top + _PANEL * 0.6
        unit = _PANEL * 0.6 / (allowed * 2.2)
        good, bad = [0] * count, [0] * count
        for at, admitted in run.log:
            index = int(at / step)
            if index < count:
                (good if admitted else bad)[index] += 1
        parts.append(f'<text x="16" y="{top + 24}">{escape(run.client)}</text>')
        parts.append(
            f'<text class="note" x="16" y="{top + 42}">{100 * run.goodput:.1f} % of the quota,</text>'
            f'<text class="note" x="16" y="{top + 58}">{_short(run.refused)} refused a success</text>'
        )
        for index in range(count):
            x = _LEFT + index * bar
            up = min(good[index] * unit, _PANEL * 0.6)
            down = min(bad[index] * unit, _PANEL * 0.4)
            if up:
                parts.append(
                    f'<rect class="good" x="{x:.1f}" y="{base - up:.1f}" width="{bar * 0.8:.1f}" height="{up:.1f}"/>'
                )
            if down:
                parts.append(
                    f'<rect class="bad" x="{x:.1f}" y="{base:.1f}" width="{bar * 0.8:.1f}" height="{down:.1f}"/>'
                )
        line = base - allowed * unit
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + room}" y1="{base:.1f}" y2="{base:.1f}"/>')
        parts.append(
            f'<line class="allowed" x1="{_LEFT}" x2="{_LEFT + room}" y1="{line:.1f}" y2="{line:.1f}"/>'
        )
    for minute in range(int(duration / 60) + 1):
        x = _LEFT + minute * 60 / duration * room
        parts.append(
            f'<text class="note" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{minute} min</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.0f}"
