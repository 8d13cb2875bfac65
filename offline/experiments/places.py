"""What only the log of this path can tell: which query, list and model brought the article that a reader clicked.

Sums of whole numbers over readers: they add up exactly in any order, and give ratios with the reader as the sampled
unit (places of one reader are alike). Squares of counts do not cancel as squares of floats do.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
import scipy  # its parts load when they are used, and no worker uses them

from offline.experiments.comparison import Interval
from offline.experiments.moments import NotEnoughData

Dimension = Literal["all", "source", "query slot", "list age", "model", "prompt"]
Column = Literal["shown", "clicked", "exclusive"]
COLUMNS: Final[tuple[Column, ...]] = ("shown", "clicked", "exclusive")
DIMENSIONS: Final[tuple[Dimension, ...]] = ("all", "source", "query slot", "list age", "model", "prompt")
MIN_READERS: Final = 30  # with a shown place, for an interval by the normal distribution

_HOUR_MS: Final = 3_600_000
_DAY_HOURS: Final = 24
NONE: Final = "none"  # no stored query, list or model brought it


class PlaceKey(msgspec.Struct, frozen=True, order=True):
    arm: str
    dimension: Dimension
    value: str


class PlaceSums(msgspec.Struct, frozen=True):
    """Over readers, of three counts of their shown places: all, those clicked, those clicked that no other path would
    have brought. `products`: upper triangle of the sums of their products, row by row."""

    readers: int
    totals: tuple[int, int, int]
    products: tuple[int, int, int, int, int, int]

    def __add__(self, other: "PlaceSums") -> "PlaceSums":
        return PlaceSums(
            self.readers + other.readers,
            tuple(a + b for a, b in zip(self.totals, other.totals, strict=True)),  # type: ignore[arg-type]
            tuple(a + b for a, b in zip(self.products, other.products, strict=True)),  # type: ignore[arg-type]
        )

    def product(self, first: int, second: int) -> int:
        low, high = sorted((first, second))
        return self.products[_TRIANGLE.index((low, high))]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    value: float
    interval: Interval | None = None  # None: too few readers


_TRIANGLE: Final = [(low, high) for low in range(3) for high in range(low, 3)]


def ratio(sums: PlaceSums, numerator: Column, denominator: Column, *, alpha: float = 0.05) -> Ratio:
    """Total by total; delta method over readers (Deng, Knoblich, Lu, KDD 2018). NotEnoughData for an empty denominator.

    The interval is none for fewer than MIN_READERS readers, and when no reader differs from the others.
    """
    above, below = COLUMNS.index(numerator), COLUMNS.index(denominator)
    if not sums.totals[below]:
        raise NotEnoughData(f"nothing was {denominator}")
    value = sums.totals[above] / sums.totals[below]
    if sums.readers < MIN_READERS:
        return Ratio(value=value)
    squares = (
        sums.product(above, above) - 2 * value * sums.product(above, below) + value**2 * sums.product(below, below)
    )
    error = math.sqrt(max(0.0, squares) * sums.readers / (sums.readers - 1)) / sums.totals[below]
    if error == 0:
        return Ratio(value=value)
    reach = float(scipy.stats.norm.ppf(1 - alpha / 2)) * error
    return Ratio(value=value, interval=Interval(max(0.0, value - reach), min(1.0, value + reach)))


def list_ages(hours: Sequence[float]) -> list[str]:
    """The names of the ages that rising bounds part: one more than there are bounds."""
    if not hours:
        return ["any age"]
    between = [_from_to(low, high) for low, high in itertools.pairwise(hours)]
    return [f"under {_long(hours[0])}", *between, f"over {_long(hours[-1])}"]


def _from_to(low: float, high: float) -> str:
    number, _, unit = _long(low, days=high >= 2 * _DAY_HOURS).partition(" ")
    other, _, same = _long(high, days=low >= _DAY_HOURS).partition(" ")
    return (
        f"{number} to {other} {same}"
        if unit in (same, same.removesuffix("s"))
        else f"{number} {unit} to {other} {same}"
    )


def _long(hours: float, *, days: bool = True) -> str:
    """Whole days as days, but for a single one at the end of hours."""
    count = hours / _DAY_HOURS
    if days and count >= 1 and count == int(count):
        return f"{count:g} day" if count == 1 else f"{count:g} days"
    return f"{hours:g} h"


def count_places(
    session: Any, *, experiment: str, window_ms: int, list_age_hours: Sequence[float]
) -> dict[PlaceKey, PlaceSums]:
    """From the tables `shown`, `done` and `users` of the fold: places shown to readers who are in the metrics, between
    their first exposure and the end of their window. A place clicked twice is one clicked place."""
    session.execute(_PLACES.format(window=window_ms, age=_age(list_age_hours)), {"experiment": experiment})
    found = {}
    for arm, dimension, value, readers, *sums in session.execute(_SUMS).fetchall():
        s, c, e, *products = (int(number) for number in sums)
        ss, sc, se, cc, ce, ee = products
        found[PlaceKey(arm, DIMENSIONS[dimension], value)] = PlaceSums(
            int(readers), (s, c, e), (ss, sc, se, cc, ce, ee)
        )
    return found


def _age(bounds: Sequence[float]) -> str:
    *names, oldest = list_ages(bounds)
    cases = " ".join(
        f"WHEN list_age_ms < {hours * _HOUR_MS} THEN '{name}'" for hours, name in zip(bounds, names, strict=True)
    )
    return f"CASE WHEN list_age_ms IS NULL THEN '{NONE}' {cases} ELSE '{oldest}' END"


# Clicks are joined to the place that they name: the request and the article.
_PLACES: Final = """
CREATE TEMP TABLE places AS
    WITH clicks AS (
        SELECT request_id, article_id, list(time_ms) AS times FROM done
        WHERE kind = 'click' AND request_id IS NOT NULL GROUP BY request_id, article_id
    )
    SELECT user_id, users.phase AS phase, users.arm AS arm, source AS by_source,
        coalesce(query_slot::VARCHAR, 'none') AS by_slot, {age} AS by_age,
        CASE WHEN model = '' THEN 'none' ELSE trim(concat(model, ' ', model_version)) END AS by_model,
        CASE WHEN prompt_version = '' THEN 'none' ELSE prompt_version END AS by_prompt,
        coalesce(len(list_filter(clicks.times,
            lambda moment: moment >= shown.time_ms AND moment <= first_at + {window})), 0) > 0 AS clicked,
        clicked AND exclusive AS exclusively
    FROM shown JOIN users USING (user_id, phase) LEFT JOIN clicks USING (request_id, article_id)
    WHERE shown.experiment = $experiment AND article_id IS NOT NULL AND users.arms = 1 AND mature AND NOT bot
        AND shown.time_ms BETWEEN first_at AND first_at + {window};
"""
_SUMS: Final = """
    WITH counted AS (
        SELECT user_id, phase, arm, GROUPING(by_source, by_slot, by_age, by_model, by_prompt) AS sets,
            coalesce(by_source, by_slot, by_age, by_model, by_prompt, 'all') AS value,
            count(*) AS s, count(*) FILTER (WHERE clicked) AS c, count(*) FILTER (WHERE exclusively) AS e
        FROM places
        GROUP BY GROUPING SETS ((user_id, phase, arm), (user_id, phase, arm, by_source), (user_id, phase, arm, by_slot),
            (user_id, phase, arm, by_age), (user_id, phase, arm, by_model), (user_id, phase, arm, by_prompt))
    )
    SELECT arm, CASE sets WHEN 31 THEN 0 WHEN 15 THEN 1 WHEN 23 THEN 2 WHEN 27 THEN 3 WHEN 29 THEN 4 ELSE 5 END AS at,
        value, count(*), sum(s), sum(c), sum(e), sum(s * s), sum(s * c), sum(s * e), sum(c * c), sum(c * e), sum(e * e)
    FROM counted GROUP BY arm, sets, value ORDER BY arm, sets, value
"""
