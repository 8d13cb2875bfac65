"""Propensities that are logged must be those of the sampler: they add up, and drawing many times shows them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.exploration import arrange, place_propensity

SHARES = st.floats(min_value=0, max_value=1)


@given(st.integers(1, 30), st.integers(0, 30), SHARES)
def test_at_each_place_the_propensities_of_the_pool_add_up_to_one(ranked: int, spare: int, share: float) -> None:
    pool = ranked + (spare if share > 0 else 0)
    for place in range(ranked):
        total = sum(place_propensity(item == place, pool, share) for item in range(pool))
        assert total == pytest.approx(1)


@given(st.integers(1, 20), st.integers(0, 20), SHARES, st.text(max_size=20))
def test_an_answer_has_distinct_items_of_the_pool_with_possible_propensities(
    ranked: int, spare: int, share: float, request_id: str
) -> None:
    placed = arrange(range(ranked), range(100, 100 + spare), share=share, request_id=request_id)
    shown = [place.item for place in placed]
    assert len(set(shown)) == len(shown) == ranked
    assert set(shown) <= {*range(ranked), *range(100, 100 + spare)}
    assert all(0 < place.propensity <= 1 for place in placed)
    assert placed == arrange(range(ranked), range(100, 100 + spare), share=share, request_id=request_id)


def test_without_exploration_the_ranking_is_shown_for_certain() -> None:
    placed = arrange("abc", "de", share=0, request_id="r1")
    assert [(place.item, place.propensity) for place in placed] == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_drawing_many_times_shows_the_logged_propensities(share: float) -> None:
    """Each item at each place: its frequency is the propensity that was logged when it was shown there."""
    draws, ranked, spare = 20_000, "abc", "de"
    seen: Counter[tuple[int, str]] = Counter()
    logged: dict[tuple[int, str], float] = {}
    for number in range(draws):
        for place, shown in enumerate(arrange(ranked, spare, share=share, request_id=f"r{number}")):
            seen[place, shown.item] += 1
            assert logged.setdefault((place, shown.item), shown.propensity) == shown.propensity
    assert len(logged) == 15  # every item of the pool has been at every place
    for cell, propensity in logged.items():
        error = (propensity * (1 - propensity) / draws) ** 0.5
        assert seen[cell] / draws == pytest.approx(propensity, abs=4.5 * error)
