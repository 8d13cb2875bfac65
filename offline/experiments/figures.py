"""Plots of the report as inline SVG: text stays text, and takes the page's colour, so that they read in dark and light.

One colour for every interval: a plot says how large and how certain, never who won.
"""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from offline.experiments.comparison import Interval
from offline.experiments.novelty import Novelty
from offline.experiments.path import PathPoint

INK: Final = "#010203"  # stands for the page's own text colour
ACCENT: Final = "#3b7dd8"
_WIDTH: Final = 5.6  # inches; the page scales it
_STYLE: Final[dict[Any, Any]] = {  # matplotlib's names
    "svg.fonttype": "none",
    "svg.hashsalt": "keenstream",  # the same report gives the same bytes
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def intervals(rows: Sequence[tuple[str, float, Interval]], alt: str) -> str:
    """Relative lifts with their intervals, one line each, from the top down."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(0.75 + 0.42 * len(rows))
        for place, (_, value, interval) in enumerate(rows):
            axes.plot([interval.low * 100, interval.high * 100], [place, place], color=ACCENT, linewidth=3)
            axes.plot([value * 100], [place], "o", color=ACCENT, markersize=7)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("lift over control, %")
        return _svg(figure, alt)


def over_days(points: Sequence[PathPoint], alt: str) -> str:
    """The difference after each day, with the interval of that day alone inside the one that holds on all days."""
    known = [point for point in points if point.value is not None and point.fixed and point.always]
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2.9)
        days = [point.day + 1 for point in known]
        for name, strength, label in (("always", 0.18, "right on all days at once"), ("fixed", 0.35, "this day alone")):
            ends = [getattr(point, name) for point in known]
            low, high = [end.low for end in ends], [end.high for end in ends]
            axes.fill_between(days, low, high, color=ACCENT, alpha=strength, linewidth=0, label=label)
        axes.plot(days, [point.value for point in known], color=ACCENT, marker="o", markersize=4, linewidth=2)
        _days(axes, days, "day of the experiment")
        axes.set_ylim(*_middle([point.always for point in known if point.always]))
        axes.legend(frameon=False, fontsize=9, loc="best")
        return _svg(figure, alt)


def since_exposure(found: Novelty, alt: str) -> str:
    """The effect on each day after first exposure, same readers on every day."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(2.7)
        days = [point.age + 1 for point in found.points]
        for day, point in zip(days, found.points, strict=True):
            axes.plot([day, day], [point.interval.low, point.interval.high], color=ACCENT, linewidth=2.5)
        axes.plot(days, [point.value for point in found.points], "o", color=ACCENT, markersize=6)
        _days(axes, days, "day since first exposure")
        return _svg(figure, alt)


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _days(axes: Any, days: Sequence[int], label: str) -> None:
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel(label)
    axes.set_ylabel("treatment − control")
    axes.set_xticks(days[:: max(1, len(days) // 7)])


def _middle(intervals: Sequence[Interval]) -> tuple[float, float]:
    """The first days are so wide that nothing else would be seen: what the second half of the days needs, tripled."""
    late = intervals[len(intervals) // 2 :]
    low, high = min(0.0, *(i.low for i in late), 0.0), max(0.0, *(i.high for i in late), 0.0)
    room = (high - low) or 1.0
    return low - room, high + room


def _svg(figure: Figure, alt: str) -> str:
    """Only the element, without the declarations of a file of its own, with words for those who do not see it."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    body = out.getvalue()
    body = re.sub(r"<metadata>.*?</metadata>", "", body[body.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", body, count=2)
    label = escape(alt, quote=True)
    body = body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return body.replace(INK, "currentColor")
