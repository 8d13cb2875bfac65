"""The chance that the declared way of looking decides: what a number of readers is worth depends on it."""

from collections.abc import Callable
from typing import Final

from scipy import stats

from offline.experiments.definition import Analysis
from offline.experiments.sequential import boundaries, chance_of_stopping, confidence_sequence

DAILY_LOOKS: Final = 14  # equal ones, until all readers are there

# Users in both arms, and the effect by its standard error with all of them -> the chance that it is found.
Chance = Callable[[float, float], float]


def chance_to_decide(analysis: Analysis) -> Chance:
    """By looks on DAILY_LOOKS days, or by one at the end."""
    if analysis.decision == "fixed":
        return at_the_end(analysis.alpha)
    fractions = [(look + 1) / DAILY_LOOKS for look in range(DAILY_LOOKS)]
    if analysis.decision == "group-sequential":
        planned = boundaries(fractions, alpha=analysis.alpha)
        return lambda users, distance: chance_of_stopping(fractions, planned, distance)
    tuned_for = {} if analysis.expected_users is None else {"tuned_for": analysis.expected_users}

    def always(users: float, distance: float) -> float:
        seen = [max(2, round(users * fraction)) for fraction in fractions]
        bounds = [confidence_sequence(0.0, 1.0, count, alpha=analysis.alpha, **tuned_for).high for count in seen]
        return chance_of_stopping(fractions, bounds, distance)

    return always


def at_the_end(alpha: float) -> Chance:
    """The normal limit of the t test's power (Cohen 1988, 2.4): experiments have hundreds of users or more."""
    bound = float(stats.norm.isf(alpha / 2))
    return lambda users, distance: float(stats.norm.sf(bound - distance) + stats.norm.cdf(-bound - distance))
