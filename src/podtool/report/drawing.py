"""The drawings of the page, as inline SVG: who speaks when, and the outline of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from podtool.artifacts import Segment, Turn
from podtool.report.text import clock

ROW_S = 600.0  # seconds per row of a long episode
_LANE, _GAP, _AXIS, _WIDTH = 22, 6, 18, 1000


def timeline(
    turns: Sequence[Turn],
    overlaps: Sequence[Segment],
    replaced: Mapping[str, str],
    colours: Mapping[str, int],
    duration: float,
) -> str:
    """Lanes of speakers over time; `replaced` maps turn ids to the anchors of their numbers.

    One row for up to ten minutes, then rows of ten minutes each.
    """
    rows = max(1, -(-int(duration * 1000) // int(ROW_S * 1000)))
    span = duration if rows == 1 else ROW_S
    parts = [
        _row(turns, overlaps, replaced, colours, i * span, min((i + 1) * span, duration), span)
        for i in range(rows)
    ]
    return "\n".join(parts)


def _row(
    turns: Sequence[Turn],
    overlaps: Sequence[Segment],
    replaced: Mapping[str, str],
    colours: Mapping[str, int],
    start: float,
    end: float,
    span: float,
) -> str:
    height = _GAP + (_LANE + _GAP) * len(colours) + _AXIS
    scale = _WIDTH / max(span, 1e-9)
    lane = {name: _GAP + i * (_LANE + _GAP) for i, name in enumerate(colours)}
    names = ", ".join(colours)
    out = [
        f'<svg class="lanes" viewBox="0 0 {_WIDTH} {height}" preserveAspectRatio="none" '
        f'style="height:{height}px" role="img" '
        f'aria-label="Turns of {escape(names)} from {clock(start)} to {clock(end)}">'
    ]
    for at in _ticks(start, end, span):
        x = (at - start) * scale
        out.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _AXIS}"/>')
    for y in lane.values():
        width = (end - start) * scale
        out.append(f'<rect class="lane" x="0" y="{y}" width="{width:.1f}" height="{_LANE}"/>')
    for turn in turns:
        if turn.end <= start or turn.start >= end or turn.speaker not in lane:
            continue
        a, b = max(turn.start, start), min(turn.end, end)
        anchor = replaced.get(turn.id)
        words = f"{turn.speaker} {clock(turn.start)} to {clock(turn.end)}"
        words += ", replaced" if anchor else ""
        box = (
            f'<rect class="turn c{colours[turn.speaker]}{" new" if anchor else ""}" '
            f'x="{(a - start) * scale:.2f}" y="{lane[turn.speaker]}" '
            f'width="{max(1.2, (b - a) * scale):.2f}" height="{_LANE}">'
            f"<title>{escape(words)}</title></rect>"
        )
        out.append(f'<a href="#{anchor}" tabindex="-1">{box}</a>' if anchor else box)
    for overlap in overlaps:
        if overlap.end <= start or overlap.start >= end:
            continue
        a, b = max(overlap.start, start), min(overlap.end, end)
        out.append(
            f'<rect class="overlap" x="{(a - start) * scale:.2f}" y="{_GAP}" '
            f'width="{max(1.0, (b - a) * scale):.2f}" height="{height - _AXIS - _GAP}">'
            f"<title>overlap {clock(overlap.start)} to {clock(overlap.end)}</title></rect>"
        )
    out.append("</svg>")
    labels = "".join(
        f'<span style="left:{(at - start) / max(span, 1e-9) * 100:.2f}%">{clock(at)}</span>'
        for at in _ticks(start, end, span)
    )
    return (
        f'<div class="row">{"".join(out)}<div class="axis" aria-hidden="true">{labels}</div></div>'
    )


def _ticks(start: float, end: float, span: float) -> list[float]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
    step = next((s for s in steps if span / s <= 8), 600)
    first = -(-start // step) * step
    count = int((end - first) // step) + 1 if end >= first else 0
    ticks = [first + i * step for i in range(count)]
    return [t for t in ticks if t < start + span * 0.96]


def waveform(points: Sequence[float], top: float, kind: str) -> str:
    """The outline of a clip, mirrored, `top` being full height."""
    n = max(2, len(points))
    top = max(top, 1e-6)
    upper = [
        f"{i * 200 / (n - 1):.1f},{20 - 19 * min(1.0, p / top):.1f}" for i, p in enumerate(points)
    ]
    lower = [
        f"{i * 200 / (n - 1):.1f},{20 + 19 * min(1.0, p / top):.1f}" for i, p in enumerate(points)
    ]
    path = " ".join([*upper, *reversed(lower)])
    return (
        f'<svg class="wave {kind}" viewBox="0 0 200 40" preserveAspectRatio="none" '
        f'aria-hidden="true"><polygon points="{path}"/></svg>'
    )
