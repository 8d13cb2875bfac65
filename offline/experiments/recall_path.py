"""The recall-path questions: what was clicked only because of this path, and whether its effect lasts."""

from collections.abc import Callable, Sequence

import msgspec

from offline.experiments.moments import Moments, NotEnoughData, added
from offline.experiments.places import DIMENSIONS, NONE, Dimension, PlaceKey, PlaceSums, Ratio, list_ages, ratio


class RecallPath(msgspec.Struct, frozen=True, eq=False):
    """Addable. `places` by arm and group; `ages` by arm: moments of the early readers' days (novelty.py)."""

    places: dict[PlaceKey, PlaceSums] = {}
    ages: dict[str, Moments] = {}

    def __add__(self, other: "RecallPath") -> "RecallPath":
        places = dict(self.places)
        for key, sums in other.places.items():
            places[key] = places[key] + sums if key in places else sums
        return RecallPath(places, added(self.ages, other.ages))


class PlaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """Places shown to the readers of one arm, of one group: a source, a query slot, an age of the list, a model or
    prompt version. None: there was nothing to divide by."""

    arm: str
    dimension: Dimension
    value: str
    readers: int
    shown: int
    clicked: int
    exclusive: int  # clicked places with an article that no other path would have brought
    click_rate: Ratio | None = None  # of shown places
    exclusive_recall: Ratio | None = None  # of clicked places


def place_rows(recall: RecallPath, *, list_age_hours: Sequence[float] = (), alpha: float = 0.05) -> list[PlaceRow]:
    """By dimension, then arm, then value in its natural order."""
    ages = list_ages(list_age_hours)
    order = sorted(recall.places, key=lambda key: (DIMENSIONS.index(key.dimension), key.arm, _natural(key.value, ages)))
    return [_row(key, recall.places[key], alpha) for key in order]


def _row(key: PlaceKey, sums: PlaceSums, alpha: float) -> PlaceRow:
    shown, clicked, exclusive = sums.totals
    return PlaceRow(
        arm=key.arm,
        dimension=key.dimension,
        value=key.value,
        readers=sums.readers,
        shown=shown,
        clicked=clicked,
        exclusive=exclusive,
        click_rate=_or_none(lambda: ratio(sums, "clicked", "shown", alpha=alpha)),
        exclusive_recall=_or_none(lambda: ratio(sums, "exclusive", "clicked", alpha=alpha)),
    )


def _or_none(compute: Callable[[], Ratio]) -> Ratio | None:
    try:
        return compute()
    except NotEnoughData:
        return None


def _natural(value: str, ages: Sequence[str]) -> tuple[int, int, str]:
    """Numbers by size, ages of lists by time, `none` last."""
    if value in ages:
        return (0, ages.index(value), "")
    if value.isdigit():
        return (0, int(value), "")
    return (2, 0, "") if value == NONE else (1, 0, value)
