"""Monte Carlo: how often a test is wrong and an interval right, counted over seeded worlds by several processes."""

import gc
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final, Literal

import msgspec
import numpy as np

from offline.experiments.moments import NotEnoughData

Kind = Literal["false positives", "coverage", "looks", "power", "detection"]
Status = Literal["inside", "within error", "outside", "contrast"]
Draw = Callable[[np.random.Generator], Mapping[str, bool]]

_CHUNK, _MOST_CHUNKS = 100, 100  # runs of one task, small enough to show progress; tasks of one study
_SURE: Final = 3.0  # Monte Carlo standard errors beyond its band that prove a figure wrong: many are judged at once


class Band(msgspec.Struct, frozen=True):
    """Where a rate belongs; a contrast (None) shows what the statistic is there to prevent."""

    kind: Kind
    low: float | None = None
    high: float | None = None
    note: str = ""


class Study(msgspec.Struct, frozen=True):
    """`draw` makes one world and says which of `figures` came true in it."""

    name: str
    draw: Draw
    figures: dict[str, Band]
    runs_factor: float = 1.0  # of the runs asked for: dear studies take fewer, rare events need more


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured rate with its Monte Carlo standard error."""

    study: str
    name: str
    kind: Kind
    rate: float | None  # None: the statistic refused itself in every run
    error: float
    runs: int
    undefined: int  # runs in which the statistic refused itself; not in `rate`
    low: float | None
    high: float | None
    status: Status
    note: str


class Counted(msgspec.Struct, frozen=True):
    """Of some runs of one study: how often each figure was defined, and how often true."""

    runs: int
    defined: Counter[str]
    true: Counter[str]

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.runs + other.runs, self.defined + other.defined, self.true + other.true)


def false_positives(note: str = "") -> Band:
    return Band("false positives", 0.04, 0.065, note)


def coverage(note: str = "") -> Band:
    return Band("coverage", 0.93, 0.97, note)


def at_most(rate: float, kind: Kind, note: str = "") -> Band:
    return Band(kind, 0.0, rate, note)


def at_least(rate: float, kind: Kind, note: str = "") -> Band:
    return Band(kind, rate, 1.0, note)


def near(rate: float, kind: Kind = "power", note: str = "") -> Band:
    """Within three points of what the formula says."""
    return Band(kind, max(0.0, rate - 0.03), min(1.0, rate + 0.03), note or f"formula {rate:.1%}")


def run_chunk(draw: Draw, seeds: Sequence[int], runs: int) -> Counted:
    """`runs` worlds from one stream of random numbers."""
    drawn = np.random.default_rng(np.random.SeedSequence(seeds))
    defined: Counter[str] = Counter()
    true: Counter[str] = Counter()
    for _ in range(runs):
        for name, holds in draw(drawn).items():
            defined[name] += 1
            true[name] += bool(holds)
    return Counted(runs, defined, true)


def attempt(test: Callable[[], bool], found: dict[str, bool], name: str) -> None:
    """Puts the outcome of `test` into `found`, unless the statistic refuses itself."""
    try:
        found[name] = test()
    except NotEnoughData:
        return


def run_studies(
    studies: Sequence[Study], *, runs: int, seed: int, workers: int | None = None
) -> Iterator[tuple[int, int, list[Figure]]]:
    """After each task: (runs done, runs in all, the figures, which are there at the last step).

    The same seed gives the same figures with any number of workers: each task has its own stream.
    """
    plan = [(number, chunk, size) for number, study in enumerate(studies) for chunk, size in _chunks(study, runs)]
    total, done = sum(size for _, _, size in plan), 0
    counted: dict[int, Counted] = {}
    # frozen: statsmodels collects garbage at each call, and what was there at the start is none
    with ProcessPoolExecutor(workers or len(os.sched_getaffinity(0)), initializer=gc.freeze) as pool:
        tasks = {
            pool.submit(run_chunk, studies[number].draw, (seed, number, chunk), size): number
            for number, chunk, size in plan
        }
        for task in as_completed(tasks):
            number, found = tasks[task], task.result()
            counted[number] = counted[number] + found if number in counted else found
            done += found.runs
            yield done, total, []
    yield done, total, [row for number, study in enumerate(studies) for row in figures(study, counted[number])]


def figures(study: Study, counted: Counted) -> list[Figure]:
    """Every declared figure of a study."""
    rows = []
    for name, band in study.figures.items():
        defined = counted.defined[name]
        rate = counted.true[name] / defined if defined else None
        error = _error(rate, defined)
        rows.append(
            Figure(
                study=study.name,
                name=name,
                kind=band.kind,
                rate=rate,
                error=error,
                runs=counted.runs,
                undefined=counted.runs - defined,
                low=band.low,
                high=band.high,
                status=status_of(rate, error, band),
                note=band.note,
            )
        )
    return rows


def status_of(rate: float | None, error: float, band: Band) -> Status:
    """`within error`: beyond its band by no more than chance does; what was never defined is outside."""
    if band.low is None or band.high is None:
        return "contrast"
    if rate is None:
        return "outside"
    if band.low <= rate <= band.high:
        return "inside"
    reach = _SURE * error
    return "within error" if band.low - reach <= rate <= band.high + reach else "outside"


def _error(rate: float | None, defined: int) -> float:
    """Of a rate over `defined` runs; that of one event where none or all of them were true."""
    if rate is None:
        return 0.0
    return math.sqrt(max(rate * (1 - rate), 1 / defined) / defined)


def _chunks(study: Study, runs: int) -> list[tuple[int, int]]:
    wanted = max(1, round(runs * study.runs_factor))
    chunk = max(1, min(_CHUNK, wanted), wanted // _MOST_CHUNKS)
    sizes = [chunk] * (wanted // chunk) + ([wanted % chunk] if wanted % chunk else [])
    return list(enumerate(sizes))
