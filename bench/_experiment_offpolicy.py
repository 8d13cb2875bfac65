"""Calibration of the off-policy estimates: rows of one reader are alike, so readers are the sampled units."""

from functools import cache
from typing import Final, get_args

import msgspec
import numpy as np
from scipy import special

from bench._experiment_calibration import Band, Study, coverage
from bench._experiment_worlds import Generator
from offline.experiments.moments import Floats, Moments
from offline.experiments.offpolicy import Estimator, Log, difference_sums, user_sums, value

USERS: Final = 500
ROWS: Final = 20.0  # mean rows of a reader, Poisson beyond the first
PLACES: Final = 3  # of a slate; the top one is looked at most
LOGGING: Final = np.array([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4]])  # [place, item]
OTHER: Final = np.array([[0.1, 0.2, 0.3, 0.4], [0.2, 0.2, 0.2, 0.4], [0.25, 0.25, 0.25, 0.25]])
PRODUCTION: Final = np.array([[0.15, 0.25, 0.25, 0.35], [0.2, 0.2, 0.3, 0.3], [0.25, 0.25, 0.25, 0.25]])
LOOKED_AT: Final = np.array([1.0, 0.7, 0.5])
APPEAL: Final = np.linspace(0.1, 0.4, 4)  # of the items
TASTE: Final = 0.7  # standard deviation of a reader's logarithmic taste: why rows are not readers
MODEL: Final = np.linspace(0.1, 0.3, 4)  # a reward model, right in its order and wrong in its size
ESTIMATORS: Final[tuple[Estimator, ...]] = get_args(Estimator)
PAIRED: Final[tuple[Estimator, ...]] = ("ips", "doubly-robust")
BIASED: Final = {"clipped": "biased down, by design", "direct": "as wrong as its model"}


def draw_log(drawn: Generator) -> tuple[Log, Log]:
    """One log with the other policy as its target, and with the production policy."""
    user = np.repeat(np.arange(USERS), drawn.poisson(ROWS, USERS) + 1)
    taste = np.exp(drawn.normal(-(TASTE**2) / 2, TASTE, USERS))[user]
    place = drawn.integers(PLACES, size=len(user))
    item = (drawn.random(len(user))[:, None] > np.cumsum(LOGGING[place], axis=1)[:, :-1]).sum(axis=1)
    click = drawn.random(len(user)) < np.minimum(1.0, taste * LOOKED_AT[place] * APPEAL[item])
    log = Log(
        user=user.astype(float),
        reward=click.astype(float),
        propensity=LOGGING[place, item],
        target=OTHER[place, item],
        predicted=MODEL[item] * LOOKED_AT[place],
        predicted_target=(OTHER @ MODEL)[place] * LOOKED_AT[place],
    )
    production = msgspec.structs.replace(
        log, target=PRODUCTION[place, item], predicted_target=(PRODUCTION @ MODEL)[place] * LOOKED_AT[place]
    )
    return log, production


def draw_offpolicy(drawn: Generator) -> dict[str, bool]:
    """Does each interval hold the other policy's value, by readers and by rows?"""
    log, production = draw_log(drawn)
    found = {}
    for unit, policy, current in (("readers", log, production), ("rows", _by_row(log), _by_row(production))):
        moments, apart = Moments.of(user_sums(policy, clip=1.5)), Moments.of(difference_sums(current, policy))
        for estimator in ESTIMATORS:
            if unit == "rows" and estimator in BIASED:
                continue
            truth = _true_value("logging" if estimator == "logged" else "other")
            found[f"{estimator}, by {unit}"] = value(moments, estimator).interval.holds(truth)
        gained = _true_value("other") - _true_value("production")
        for estimator in PAIRED:
            found[f"difference, {estimator}, by {unit}"] = value(apart, estimator).interval.holds(gained)
    return found


def offpolicy_studies() -> list[Study]:
    """All of this file."""
    names = [*ESTIMATORS, "difference, ips", "difference, doubly-robust"]
    bands = {
        f"{name}, by readers": Band("coverage", note=BIASED[name]) if name in BIASED else coverage("slates")
        for name in names
    }
    rows = {
        f"{name}, by rows": Band("coverage", note="rows as if they were readers")
        for name in names
        if name not in BIASED
    }
    return [Study("off-policy", draw_offpolicy, bands | rows)]


def _by_row(log: Log) -> Log:
    return msgspec.structs.replace(log, user=np.arange(len(log.user), dtype=float))


@cache
def _true_value(policy: str) -> float:
    """Expected clicks of a shown place; the chance of a click is cut at 1, so the mean over tastes is by quadrature."""
    probabilities: Floats = {"logging": LOGGING, "other": OTHER, "production": PRODUCTION}[policy]
    nodes, weights = special.roots_hermitenorm(200)
    taste = np.exp(TASTE * nodes - TASTE**2 / 2)
    chance = LOOKED_AT[:, None] * APPEAL[None, :]
    clicked = np.minimum(1.0, taste[:, None, None] * chance) * (weights / weights.sum())[:, None, None]
    return float((clicked.sum(axis=0) * probabilities).sum(axis=1).mean())
