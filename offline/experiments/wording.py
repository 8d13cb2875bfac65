"""Figures of a report as text, the same on the page and in the terminal. What could not be computed is said."""

from typing import Final

import msgspec

from offline.experiments.comparison import Interval
from offline.experiments.interaction import Interaction
from offline.experiments.metric_rows import Comparison
from offline.experiments.novelty import Novelty
from offline.experiments.places import Ratio
from offline.experiments.recall_path import PlaceRow

NOTHING: Final = "not enough data"


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """`control` and `treatment` are the plain figures, which everybody can count again; `lift` is the adjusted one."""

    name: str
    role: str
    estimand: str
    control: str
    treatment: str
    lift: str
    interval: str
    p_value: str
    better: str
    note: str
    plain_lift: str  # of the two plain figures, where history or strata have changed it


def metric_row(name: str, row: Comparison) -> MetricRow:
    return MetricRow(
        name=name,
        role=row.role,
        estimand=row.estimand,
        control=f"{row.control.unadjusted:.4g}" if row.control else NOTHING,
        treatment=f"{row.treatment.unadjusted:.4g}" if row.treatment else NOTHING,
        lift=f"{row.lift.value:+.1%}" if row.lift else NOTHING,
        interval=_percent(row.lift.interval, "+") if row.lift else NOTHING,
        p_value=_p_value(row),
        better=f"{row.belief.better:.1%}" if row.belief else NOTHING,
        note=_note(row),
        plain_lift=_plain_lift(row),
    )


def novelty_sentence(found: Novelty | None) -> str:
    if found is None or found.slope is None or found.slope_interval is None or found.slope_p_value is None:
        return f"{NOTHING}: {found.missing}" if found and found.missing else NOTHING
    ends = f"{found.slope_interval.low:+.2g} to {found.slope_interval.high:+.2g}"
    return (
        f"The effect changes by {found.slope:+.2g} a day ({ends}; p = {found.slope_p_value:.2g}), "
        f"over the same {found.readers:,} early readers on every day."
    )


def interaction_words(found: Interaction | None) -> str:
    if found is None:
        return NOTHING
    compared = "lifts compared" if found.scale == "relative" else "absolute effects compared, as a lift is refused"
    return f"p = {found.p_value:.2g}, {compared}"


def place_row(row: PlaceRow) -> dict[str, str]:
    return {
        "arm": row.arm,
        "value": row.value,
        "shown": f"{row.shown:,}",
        "clicked": f"{row.clicked:,}",
        "rate": _ratio(row.click_rate),
        "rate_interval": _around(row.click_rate),
        "exclusive": _ratio(row.exclusive_recall),
        "exclusive_interval": _around(row.exclusive_recall),
    }


def readable(name: str) -> str:
    return name.replace("_", " ")


def _p_value(row: Comparison) -> str:
    if row.difference is None:
        return NOTHING
    p_value = row.adjusted.p_value if row.adjusted else row.difference.p_value
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.2g}"


def _note(row: Comparison) -> str:
    parts = [row.missing] if row.missing else []
    if row.role == "guardrail" and row.non_inferiority:
        found = row.non_inferiority
        held = "shown" if found.holds else "not shown"
        harm = "lose" if row.higher_is_better else "rise by"
        parts.append(f"{held} to {harm} less than {found.margin:.1%} (at worst {found.low:+.1%})")
    if row.capped_share:
        parts.append(f"{row.capped_share:.2%} of readers were capped")
    return "; ".join(parts)


def _plain_lift(row: Comparison) -> str:
    if row.lift is None or row.control is None or row.treatment is None:
        return ""
    shown, plain = f"{row.lift.value:+.1%}", f"{row.treatment.unadjusted / row.control.unadjusted - 1:+.1%}"
    return plain if plain != shown else ""


def _percent(interval: Interval, sign: str = "") -> str:
    return f"{interval.low:{sign}.1%} to {interval.high:{sign}.1%}"


def _ratio(found: Ratio | None) -> str:
    return NOTHING if found is None else f"{found.value:.1%}"


def _around(found: Ratio | None) -> str:
    return _percent(found.interval) if found and found.interval else ""
