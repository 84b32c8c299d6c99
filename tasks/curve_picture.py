"""A backtest's curves as one SVG: no script, no link, and the same bytes for the same numbers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise

Point = tuple[int, float, float, float]
"""A frame, its value, and the bounds of its interval."""

WIDTH, HEIGHT = 960, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 44, 48
MOST_LABELS = 8
MICROSECONDS_PER_HOUR = 3_600_000_000

COLOURS = {
    "online": "#1f5fa8",
    "offline": "#c4512d",
    "recent_popularity": "#6b7480",
}
DASHED = "6 4"
"""Of a curve whose trend is not refreshed, where one that is stands beside it."""

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2430}.soft{fill:#5b6575}.title{font-size:16px}"
    ".grid{stroke:#d9dee6}.line{fill:none;stroke-width:2}.band{opacity:.1;stroke:none}"
)


def curve_picture(
    lines: Mapping[str, Sequence[Point]], starts: Sequence[int], *, metric: str, kind: str
) -> str:
    """The picture of `lines`, each with its points in the order of frames; a frame that a line has
    no point for is a gap in it.

    `starts` are where the frames begin and the last one ends, in microseconds; the times of a log
    of another `kind` than absolute are shown as hours from the first.
    """
    highest = max((point[3] for points in lines.values() for point in points), default=0.0)
    ticks = _ticks(highest)
    scale = _Scale(frames=len(starts) - 1, top=ticks[-1])
    solid = {name: name.endswith("_trend") or f"{name}_trend" not in lines for name in lines}
    pieces = {name: _pieces(points) for name, points in lines.items()}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text class="title" x="{LEFT}" y="24">{escape(metric)} in each frame</text>',
            *_axes(scale, ticks, starts, kind),
            # below all lines, and of the solid ones alone: all of them would hide each other
            *(_band(scale, name, one) for name in lines if solid[name] for one in pieces[name]),
            *(
                part
                for name in lines
                for one in pieces[name]
                for part in _line(scale, name, one, solid=solid[name])
            ),
            *_legend(lines, solid),
            "</svg>",
            "",
        ]
    )


class _Scale:
    """Where frames and values lie in the picture."""

    def __init__(self, *, frames: int, top: float) -> None:
        self._wide = (WIDTH - LEFT - RIGHT) / frames
        self._high = (HEIGHT - TOP - BOTTOM) / top

    def x(self, frame: float) -> str:
        """Of a frame's beginning; its middle is half a frame later."""
        return f"{LEFT + frame * self._wide:.1f}"

    def y(self, value: float) -> str:
        return f"{HEIGHT - BOTTOM - value * self._high:.1f}"


def _ticks(highest: float) -> list[float]:
    """Some round values from 0 to at least the highest."""
    if highest <= 0.0:
        return [0.0, 1.0]
    size = 10.0 ** len(f"{1 / highest:.0f}") if highest < 1 else 1.0
    step = next(
        step
        for step in (part / size for part in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))
        if highest / step <= 6
    )
    count = int(highest / step) + 1
    return [step * index for index in range(count + 1)]


def _axes(scale: _Scale, ticks: Sequence[float], starts: Sequence[int], kind: str) -> list[str]:
    frames = len(starts) - 1
    right = scale.x(frames)
    parts = []
    for value in ticks:
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text class="soft" x="{LEFT - 8}" y="{y}" text-anchor="end" '
            f'dominant-baseline="middle">{value:g}</text>'
        )
    every = -(-frames // MOST_LABELS)
    hours = (starts[1] - starts[0]) / MICROSECONDS_PER_HOUR
    for frame in range(0, frames, every):
        x = scale.x(frame + 0.5)
        label = _moment(starts[frame], starts[0], kind=kind, whole_days=hours >= 24)
        parts.append(
            f'<text class="soft" x="{x}" y="{HEIGHT - BOTTOM + 20}" '
            f'text-anchor="middle">{label}</text>'
        )
    length = f"{hours:g} hours" if hours != 1 else "one hour"
    middle = scale.x(frames / 2)
    parts.append(
        f'<text class="soft" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"beginning of each frame of {length}{', UTC' if kind == 'absolute' else ''}</text>"
    )
    return parts


def _moment(start: int, first: int, *, kind: str, whole_days: bool) -> str:
    if kind != "absolute":
        return f"+{(start - first) / MICROSECONDS_PER_HOUR:g} h"
    moment = datetime(1970, 1, 1) + timedelta(microseconds=start)  # noqa: DTZ001 (UTC)
    return moment.strftime("%Y-%m-%d" if whole_days else "%m-%d %H:%M")


def _pieces(points: Sequence[Point]) -> list[Sequence[Point]]:
    """A line cut where frames are missing."""
    breaks = [
        place
        for place, (one, other) in enumerate(pairwise(points), start=1)
        if other[0] > one[0] + 1
    ]
    return [points[begin:end] for begin, end in pairwise([0, *breaks, len(points)])]


def _band(scale: _Scale, name: str, piece: Sequence[Point]) -> str:
    """The intervals of a line."""
    upper = [(scale.x(frame + 0.5), scale.y(high)) for frame, _, _, high in piece]
    lower = [(scale.x(frame + 0.5), scale.y(low)) for frame, _, low, _ in piece]
    return (
        f'<polygon class="band" fill="{_colour(name)}" points="{_path([*upper, *lower[::-1]])}"/>'
    )


def _line(scale: _Scale, name: str, piece: Sequence[Point], *, solid: bool) -> list[str]:
    """A line with its points."""
    points = [(scale.x(frame + 0.5), scale.y(value)) for frame, value, _, _ in piece]
    return [
        f'<polyline class="line" stroke="{_colour(name)}"{_dash(solid)} points="{_path(points)}"/>',
        *(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{_colour(name)}"/>' for x, y in points),
    ]


def _legend(lines: Mapping[str, Sequence[Point]], solid: Mapping[str, bool]) -> list[str]:
    """The curves by name, the one that is highest on average first."""
    ordered = sorted(
        lines, key=lambda name: -sum(point[1] for point in lines[name]) / max(1, len(lines[name]))
    )
    parts = []
    x = WIDTH - RIGHT + 14
    for place, name in enumerate(ordered):
        y = TOP + 8 + 22 * place
        parts.append(
            f'<line class="line" x1="{x}" x2="{x + 26}" y1="{y}" y2="{y}" '
            f'stroke="{_colour(name)}"{_dash(solid[name])}/>'
        )
        label = escape(name.replace("_", " "))
        parts.append(f'<text x="{x + 34}" y="{y}" dominant-baseline="middle">{label}</text>')
    return parts


def _colour(name: str) -> str:
    return COLOURS[name.removesuffix("_trend")]


def _dash(solid: bool) -> str:
    return "" if solid else f' stroke-dasharray="{DASHED}"'


def _path(points: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
