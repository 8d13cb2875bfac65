"""A little chance in the order of an answer, with the exact probability of each article at its place.

An answer that is always the same for the same reader cannot be read off-policy: nothing is known of what was not shown.
With probability `share` the places are filled by a uniform draw without replacement from the pool, else by the ranking;
so the marginal propensity of an article at a place is known in closed form, for every article and place:

    P(article at place) = (1 - share) * [the ranking has it there] + share / len(pool)
"""

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class Placed(msgspec.Struct, Generic[Item], frozen=True):
    """What is shown at a place, and with which probability this policy puts it there."""

    item: Item
    propensity: float


def arrange(
    ranked: Sequence[Item], spare: Sequence[Item], *, share: float, request_id: str
) -> tuple[Placed[Item], ...]:
    """As many places as `ranked` has, best first; `spare` are further items for the pool, none of `ranked`.

    A function of its arguments: the same request draws the same order. Without exploration each propensity is 1.
    """
    if share <= 0 or not ranked:
        return tuple(Placed(item, 1.0) for item in ranked)
    pool = [*ranked, *spare]
    draw = Random(hashlib.sha256(request_id.encode()).digest())
    explored = draw.random() < share
    places = draw.sample(range(len(pool)), len(ranked)) if explored else range(len(ranked))
    return tuple(
        Placed(pool[number], place_propensity(number == place, len(pool), share)) for place, number in enumerate(places)
    )


def place_propensity(as_ranked: bool, pool: int, share: float) -> float:
    """Of an item of the pool at one place; `as_ranked`: the ranking puts it there."""
    return (1 - share) * as_ranked + share / pool
