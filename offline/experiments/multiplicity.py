"""Several comparisons in one family: adjusted p-values, and the level at which each interval is to be read."""

from collections.abc import Sequence

import msgspec
import numpy as np
from statsmodels.stats.multitest import multipletests

from offline.experiments.definition import Correction

_STATSMODELS = {"holm": "holm", "benjamini-hochberg": "fdr_bh"}


class Adjusted(msgspec.Struct, frozen=True, kw_only=True):
    """`alpha` is the level at which the interval excludes zero exactly when the adjusted test rejects."""

    p_value: float
    alpha: float
    rejected: bool


def adjust(p_values: Sequence[float], *, alpha: float = 0.05, correction: Correction = "holm") -> list[Adjusted]:
    """Holm (1979) controls the chance of any false finding; Benjamini, Hochberg (1995) their expected share."""
    if not p_values:
        return []
    rejected, adjusted, _, _ = multipletests(p_values, alpha=alpha, method=_STATSMODELS[correction])
    count = int(np.sum(rejected))
    levels = _holm_levels(p_values, count, alpha) if correction == "holm" else _bh_levels(p_values, count, alpha)
    rows = zip(adjusted, levels, rejected, strict=True)
    return [Adjusted(p_value=float(p), alpha=level, rejected=bool(out)) for p, level, out in rows]


def bonferroni(p_value: float, tests: int, *, alpha: float = 0.05) -> Adjusted:
    """One of `tests`, each at the same level, whatever the others find."""
    level = alpha / tests
    return Adjusted(p_value=min(1.0, tests * p_value), alpha=level, rejected=p_value < level)


def _holm_levels(p_values: Sequence[float], rejected: int, alpha: float) -> list[float]:
    """alpha / (m - rank) for what is rejected; the first level that failed for all others."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    levels = np.empty(len(p_values))
    for rank, at in enumerate(order):
        levels[at] = alpha / (len(p_values) - min(rank, rejected))
    return [float(level) for level in levels]


def _bh_levels(p_values: Sequence[float], rejected: int, alpha: float) -> list[float]:
    """alpha R / m: the false-coverage-rate intervals of Benjamini, Yekutieli (JASA 100, 2005); alpha / m when none."""
    return [alpha * max(1, rejected) / len(p_values)] * len(p_values)
