import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.profile import Signal, UserProfile
from schemas.queries import (
    MAX_QUERIES,
    MAX_QUERY_CHARACTERS,
    distinct_queries,
    parse_queries,
    signals_as_queries,
)


@given(st.text(max_size=400))
def test_parsing_is_total_and_its_queries_are_clean(text: str) -> None:
    queries = parse_queries(text)
    assert len(queries) <= MAX_QUERIES
    assert len({query.casefold() for query in queries}) == len(queries)
    for query in queries:
        assert query == query.strip()
        assert 0 < len(query) <= MAX_QUERY_CHARACTERS
        assert query.isprintable()
        assert not set(query) & set(";\n|")


@given(st.text(alphabet="abc ;.1-\n", max_size=120))
def test_parsing_its_own_output_changes_nothing(text: str) -> None:
    queries = parse_queries(text)
    assert parse_queries("; ".join(queries)) == queries


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("measles vaccine; school closures", ("measles vaccine", "school closures")),
        ("1. solar power\n2) heat pumps\n- grid storage", ("solar power", "heat pumps", "grid storage")),
        ("Mars rover; mars ROVER; Mars  rover", ("Mars rover",)),
        ("US tariffs on steel imports; US tariffs on steel", ("US tariffs on steel imports",)),
        ("see https://a.example/x; www.a.example; <b>bold</b>; ```; [a](b)", ()),
        ("", ()),
        (";;; \n \n ;", ()),
        ("123 456; 2024", ()),
        ("nfl nfl nfl nfl bowl", ()),
        ("one " * 13, ()),
        ("x" * 81, ()),
        ("a one; b two; c three; d four; e five; f six", ("a one", "b two", "c three", "d four", "e five")),
        ('"quoted story"; **bold claim**', ("quoted story", "bold claim")),
        ("Führerschein Reform; 東京 地震", ("Führerschein Reform", "東京 地震")),
    ],
)
def test_what_is_kept(text: str, queries: tuple[str, ...]) -> None:
    assert parse_queries(text) == queries


def test_signals_become_queries_that_are_cut_not_dropped() -> None:
    long = "Why the very long headline of a story that never seems to end still goes on and on and on"
    queries = distinct_queries([long, "gas grill | review", long], limit=5)
    assert queries == ("Why the very long headline of a story that never seems to", "gas grill review")


def test_clicks_take_two_thirds_of_the_places_of_signals() -> None:
    pages = tuple(Signal(number, f"p{number}", f"recipe number {number} soup{number}") for number in range(10, 20))
    clicks = tuple(Signal(number, f"c{number}", f"news{number} of the day{number}") for number in range(5))
    profile = UserProfile("u", page=pages, click=clicks)
    assert signals_as_queries(profile, limit=3) == (
        "news4 of the day4",
        "news3 of the day3",
        "recipe number 19 soup19",
    )


def test_other_signals_and_older_clicks_fill_the_places_that_are_left() -> None:
    one = UserProfile("u", search=(Signal(1, "s", "bread"), Signal(2, "t", "soup")), click=(Signal(0, "c", "news"),))
    assert signals_as_queries(one, limit=6) == ("news", "soup", "bread")
    clicks = tuple(Signal(number, f"c{number}", f"news{number} day{number}") for number in range(3))
    only = UserProfile("u", click=clicks)
    assert signals_as_queries(only, limit=3) == ("news2 day2", "news1 day1", "news0 day0")
