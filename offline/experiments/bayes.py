"""A Bayesian second column: a normal prior on the relative lift, in closed form."""

import math

import msgspec
from scipy import stats

from offline.experiments.comparison import Interval
from offline.experiments.moments import NotEnoughData


class Belief(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader of the experiment should believe about the lift."""

    mean: float
    interval: Interval  # credible, central
    better: float  # probability that the lift is above 0
    expected_loss: float  # of choosing the treatment, on the scale of the lift


def belief(
    lift: float, standard_error: float, *, prior_mean: float = 0.0, prior_error: float = 0.3, level: float = 0.95
) -> Belief:
    """Normal likelihood, normal prior (Gelman et al., Bayesian Data Analysis, 2.5). The default prior is wide: about
    95 % of experiments are expected to move the metric by less than 60 % of itself."""
    if standard_error <= 0 or prior_error <= 0:
        raise NotEnoughData("no variation in either arm")
    precision = 1 / standard_error**2 + 1 / prior_error**2
    mean = (lift / standard_error**2 + prior_mean / prior_error**2) / precision
    spread = 1 / math.sqrt(precision)
    reach = float(stats.norm.ppf(0.5 + level / 2)) * spread
    z = mean / spread
    loss = spread * float(stats.norm.pdf(z)) - mean * float(stats.norm.sf(z))
    return Belief(
        mean=mean, interval=Interval(mean - reach, mean + reach), better=float(stats.norm.cdf(z)), expected_loss=loss
    )
