"""Readers of a simulated experiment: traits, arms, and when they come. Arrays of numpy, one entry for each reader."""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.simulate.log_settings import BOT_REQUESTS, COLD_SIGNALS, DAY_MS, TREATMENT, LogSettings
from schemas.experiment import Experiment, assign_arm

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

HISTORY: Final = -1  # the phase of what was before the experiment
_BOT_VISITS: Final = 1.5  # times BOT_REQUESTS in the history, and as often afterwards


class LogReaders(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """[n] each; `treated` and `lost` are [phases, n]."""

    number: Ints
    names: NDArray[Any]
    cold: Flags
    bot: Flags
    triggered: Flags
    signals: Ints
    taste: Floats  # mean 1
    rate: Floats  # visits a day, untreated
    assigned: Flags  # [phases, n]: what `assign_arm` gives is the treatment
    misassigned: Flags
    treated: Flags
    lost: Flags


class Visits(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """[v] each: every visit is one request. Sorted by reader and time."""

    reader: Ints  # index into the chunk's readers
    at_ms: Ints
    phase: Ints  # HISTORY before the experiment


def draw_readers(settings: LogSettings, experiment: Experiment, first: int, rng: np.random.Generator) -> LogReaders:
    """Those with the numbers from `first` on, `chunk_readers` of them or what is left."""
    number = np.arange(first, min(settings.readers, first + settings.chunk_readers))
    count, faults = len(number), settings.faults
    names = np.array([f"reader-{n:08d}" for n in number], dtype=object)
    bot = rng.random(count) < faults.bots
    cold = (rng.random(count) < settings.cold_share) & ~bot
    rate = settings.visits_per_day * _log_normal(rng, settings.activity_spread, count)
    assigned = _assigned(names, experiment)
    misassigned = rng.random(count) < faults.misassigned
    treated = assigned ^ misassigned
    return LogReaders(
        number=number,
        names=names,
        cold=cold,
        bot=bot,
        triggered=rng.random(count) < settings.trigger_share,
        signals=np.where(cold, rng.integers(0, COLD_SIGNALS + 1, count), rng.integers(COLD_SIGNALS + 1, 60, count)),
        taste=_log_normal(rng, settings.taste_spread, count),
        rate=np.where(bot, _BOT_VISITS * BOT_REQUESTS / max(settings.history_days, 1.0), rate),
        assigned=assigned,
        misassigned=misassigned,
        treated=treated,
        lost=treated & (rng.random(count) < faults.lost_treatment),
    )


def draw_visits(settings: LogSettings, readers: LogReaders, rng: np.random.Generator) -> Visits:
    """A Poisson process for each reader; the treatment changes its rate from the first visit of a phase on.

    So who comes at all, and when first, does not hang on the arm.
    """
    parts = [_history(settings, readers, rng)]
    for phase, (start, end) in enumerate(settings.phase_bounds_ms):
        parts += _phase_visits(settings, readers, phase, (start, end), rng)
    reader, at, phases = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((phases, at, reader))
    return Visits(reader=reader[order], at_ms=at[order], phase=phases[order])


def activity_gain(settings: LogSettings, readers: LogReaders) -> Floats:
    """[n]: by how much the treatment multiplies the rate of visits."""
    return np.where(readers.triggered & ~readers.bot, 1 + settings.activity_lift, 1.0)


def click_gain(settings: LogSettings, readers: LogReaders) -> Floats:
    """[n]: by how much the treatment multiplies the chance of a click."""
    gain = 1 + np.where(readers.cold, settings.cold_lift, settings.warm_lift)
    return np.where(readers.triggered & ~readers.bot, gain, 1.0)


def first_visits(visits: Visits, readers: int, phase: int) -> Ints:
    """[readers]: UTC ms of each reader's first visit in `phase`; -1 for who never came."""
    found = np.full(readers, -1, dtype=np.int64)
    of_phase = np.flatnonzero(visits.phase == phase)[::-1]  # the earliest is written last
    found[visits.reader[of_phase]] = visits.at_ms[of_phase]
    return found


def _history(settings: LogSettings, readers: LogReaders, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Cold readers have none; of bots more than BOT_REQUESTS."""
    mean = np.where(readers.cold, 0.0, readers.rate * settings.history_days)
    count = rng.poisson(mean)
    # a reader above the bots' bound would be a false bot, and a bot below it none
    bounded = np.where(readers.bot, np.maximum(count, BOT_REQUESTS + 50), np.minimum(count, BOT_REQUESTS // 2))
    reader = np.repeat(np.arange(len(count)), bounded)
    before = rng.random(len(reader)) * settings.history_days * DAY_MS
    at = settings.start_ms - 1 - before.astype(np.int64)
    return reader, at, np.full(len(reader), HISTORY)


def _phase_visits(
    settings: LogSettings, readers: LogReaders, phase: int, bounds: tuple[int, int], rng: np.random.Generator
) -> list[tuple[Ints, Ints, Ints]]:
    start, end = bounds
    first = start + (rng.exponential(1 / readers.rate) * DAY_MS).astype(np.int64)
    there = np.flatnonzero(first < end)
    gain = np.where(readers.treated[phase], activity_gain(settings, readers), 1.0)
    left = (end - first[there]) / DAY_MS
    more = rng.poisson(readers.rate[there] * gain[there] * left)
    again = np.repeat(there, more)
    later = first[again] + (rng.random(len(again)) * np.repeat(end - first[there], more)).astype(np.int64)
    return [
        (there, first[there], np.full(len(there), phase)),
        (again, later, np.full(len(again), phase)),
    ]


def _assigned(names: NDArray[Any], experiment: Experiment) -> Flags:
    rows = []
    for phase in experiment.phases:
        at_ms = round(phase.starts_at.timestamp() * 1000)
        arms = (assign_arm(name, experiment, at_ms).arm for name in names)
        rows.append([arm is not None and arm.name == TREATMENT for arm in arms])
    return np.array(rows, dtype=bool)


def _log_normal(rng: np.random.Generator, spread: float, count: int) -> Floats:
    """Mean 1."""
    drawn: Floats = np.exp(rng.normal(-(spread**2) / 2, spread, count))
    return drawn
