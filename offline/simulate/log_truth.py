"""What the analysis of a simulated experiment should find: expected values under both arms, for the same readers.

Every reader has a chance of each click and a rate of visits in either arm, so the effect is computed and not estimated.
"""

from typing import Final

import msgspec
import numpy as np

from offline.simulate.log_readers import Floats, LogReaders, activity_gain, click_gain
from offline.simulate.log_settings import DAY_MS, LogSettings

METRICS: Final = ("ctr", "clicks", "dwell", "active-days", "visits", "returned")  # as the written analysis names them
SEGMENTS: Final = ("cold", "warm")
ARMS: Final = 2  # control, treatment
_PARTS: Final = 2  # numerator, denominator


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """Of one metric in one segment; `lift` is relative to the control."""

    metric: str
    segment: str  # all, cold, warm
    readers: int
    control: float
    treatment: float
    difference: float
    lift: float


class TruthSums(msgspec.Struct, frozen=True, eq=False):
    """`sums` [METRICS, SEGMENTS, ARMS, 2]: numerator and denominator over readers; `readers` [SEGMENTS]. Addable."""

    sums: Floats
    readers: Floats

    @staticmethod
    def zero() -> "TruthSums":
        return TruthSums(np.zeros((len(METRICS), len(SEGMENTS), ARMS, _PARTS)), np.zeros(len(SEGMENTS)))

    def __add__(self, other: "TruthSums") -> "TruthSums":
        return TruthSums(self.sums + other.sums, self.readers + other.readers)


def truth_of(settings: LogSettings, readers: LogReaders, chance: Floats, first_ms: Floats) -> TruthSums:
    """Of the last phase's readers whose window passes before its end; bots are in no metric.

    `chance` [n, ARMS]: expected clicks of one answer in either arm; `first_ms` [n]: the first visit, below 0 for none.
    """
    counted = (first_ms >= 0) & (first_ms + round(settings.window_days * DAY_MS) <= settings.end_ms) & ~readers.bot
    rates = np.column_stack([readers.rate, readers.rate * activity_gain(settings, readers)])[counted]
    dwell = np.ones((len(readers.number), ARMS)) * settings.dwell_seconds
    dwell[:, 1] *= np.where(readers.triggered, 1 + settings.dwell_lift, 1.0)
    requests = 1 + rates * settings.window_days
    clicks = requests * chance[counted]
    one = np.ones_like(clicks)
    pairs = {
        "ctr": (clicks, requests * settings.places),
        "clicks": (clicks, one),
        "dwell": (clicks * dwell[counted], one),
        "active-days": (_active_days(rates, first_ms[counted], settings.window_days), one),
        "visits": (requests, one),
        "returned": (1 - np.exp(-rates * max(0.0, settings.window_days - 1)), one),
    }
    values = np.stack([np.stack(pairs[name], axis=-1) for name in METRICS])  # [metrics, readers, arms, parts]
    members = [readers.cold[counted], ~readers.cold[counted]]
    sums = np.stack([values[:, mask].sum(axis=1) for mask in members], axis=1)
    return TruthSums(sums, np.array([float(mask.sum()) for mask in members]))


def effects(truth: TruthSums) -> list[Effect]:
    """Each metric for all readers and by segment; a segment without readers or clicks is left out."""
    found = []
    for number, metric in enumerate(METRICS):
        for segment, sums, readers in _segments(truth, number):
            if readers and sums[0, 0] > 0:
                control, treatment = (float(value) for value in sums[:, 0] / sums[:, 1])
                found.append(
                    Effect(
                        metric=metric,
                        segment=segment,
                        readers=readers,
                        control=control,
                        treatment=treatment,
                        difference=treatment - control,
                        lift=treatment / control - 1,
                    )
                )
    return found


def answer_chances(settings: LogSettings, readers: LogReaders) -> Floats:
    """[n, ARMS]: expected clicks of one answer, over the order that exploration draws."""
    appeal, looked = appeals(settings), looks(settings)
    scale = np.stack([readers.taste, readers.taste * click_gain(settings, readers)], axis=1) * settings.base_ctr
    drawn: Floats = np.zeros_like(scale)
    for place in range(settings.places):
        ranked = np.minimum(1.0, scale * looked[place] * appeal[place])
        uniform = np.minimum(1.0, scale[..., None] * looked[place] * appeal).mean(axis=-1)
        drawn += (1 - settings.exploration) * ranked + settings.exploration * uniform
    return drawn


def appeals(settings: LogSettings) -> Floats:
    """[pool]: of the ranking's articles, the first = 1."""
    found: Floats = np.arange(1, settings.pool + 1, dtype=np.float64) ** -settings.appeal_decay
    return found


def looks(settings: LogSettings) -> Floats:
    """[places]: the examination probability of each (position-based model; Craswell et al., WSDM 2008)."""
    found: Floats = np.arange(1, settings.places + 1, dtype=np.float64) ** -settings.position_bias
    return found


def _segments(truth: TruthSums, metric: int) -> list[tuple[str, Floats, int]]:
    rows = [("all", truth.sums[metric].sum(axis=0), int(truth.readers.sum()))]
    return rows + [(name, truth.sums[metric, n], int(truth.readers[n])) for n, name in enumerate(SEGMENTS)]


def _active_days(rates: Floats, first_ms: Floats, window_days: float) -> Floats:
    """[n, ARMS]: expected distinct UTC days with a visit: the first, and each later one that a visit falls on."""
    into_day = (first_ms % DAY_MS) / DAY_MS
    found: Floats = np.ones_like(rates)
    for day in range(1, int(np.ceil(window_days)) + 1):
        inside = np.clip(into_day + window_days - day, 0.0, 1.0)
        found += 1 - np.exp(-rates * inside[:, None])
    return found
