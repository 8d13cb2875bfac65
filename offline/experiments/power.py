"""How many users, how small an effect, how many more days: from the moments of users seen so far."""

import math
from typing import Final

from scipy import optimize

from offline.experiments.estimates import Estimate
from offline.experiments.looking import Chance, at_the_end
from offline.experiments.moments import NotEnoughData

_MOST_USERS: Final = 10**12


def power_of(
    control: Estimate,
    *,
    lift: float,
    users: float,
    treatment_share: float = 0.5,
    alpha: float = 0.05,
    chance: Chance | None = None,
) -> float:
    """The chance that Welch's test finds a relative `lift` with `users` in both arms, as variable as the control's.

    `chance` instead of `alpha`: of another way of looking than once at the end (looking.py).
    """
    per_user = control.variance * control.count
    below, above = users * (1 - treatment_share), users * treatment_share
    if min(below, above) < 2 or per_user <= 0 or control.unadjusted == 0:
        raise NotEnoughData("fewer than two users in an arm, no variation, or a control mean of zero")
    error = math.sqrt(per_user / below + per_user / above)
    return (chance or at_the_end(alpha))(users, lift * abs(control.unadjusted) / error)


def users_needed(
    control: Estimate,
    *,
    lift: float,
    power: float = 0.8,
    treatment_share: float = 0.5,
    alpha: float = 0.05,
    chance: Chance | None = None,
) -> int:
    """Users in both arms for `power` at a relative `lift`."""
    if lift == 0:
        raise NotEnoughData("no number of users finds an effect of zero")

    def short(log_users: float) -> float:
        at = math.exp(log_users)
        found = power_of(control, lift=lift, users=at, treatment_share=treatment_share, alpha=alpha, chance=chance)
        return found - power

    fewest = math.log(4 / min(treatment_share, 1 - treatment_share))
    if short(fewest) >= 0:
        return math.ceil(math.exp(fewest))
    return math.ceil(math.exp(float(optimize.brentq(short, fewest, math.log(_MOST_USERS)))))


def detectable_lift(
    control: Estimate,
    *,
    users: int,
    power: float = 0.8,
    treatment_share: float = 0.5,
    alpha: float = 0.05,
    chance: Chance | None = None,
) -> float:
    """The smallest relative lift found with `power` by `users` in both arms (MDE)."""

    def short(lift: float) -> float:
        found = power_of(control, lift=lift, users=users, treatment_share=treatment_share, alpha=alpha, chance=chance)
        return found - power

    widest = 1.0
    while short(widest) < 0:
        widest *= 2
    return float(optimize.brentq(short, 0.0, widest))


def days_needed(users: int, new_users_by_day: list[float]) -> int | None:
    """Days until `users` distinct users have come, the last day's rate going on; None when nobody comes any more."""
    reached = 0.0
    for day, new in enumerate(new_users_by_day, start=1):
        reached += new
        if reached >= users:
            return day
    rate = new_users_by_day[-1] if new_users_by_day else 0.0
    return None if rate <= 0 else len(new_users_by_day) + math.ceil((users - reached) / rate)
