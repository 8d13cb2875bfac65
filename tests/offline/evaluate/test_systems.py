from collections.abc import Sequence

from offline.evaluate.held_out import HeldOutReader, Split
from offline.evaluate.retrieval import ExactIndex, Finder, Query, VectorCache
from offline.evaluate.systems import (
    POPULAR_MS,
    Search,
    fused,
    latest_click,
    own_signals,
    popularity,
    popularity_told,
    student_lists,
    true_interests,
)
from offline.simulate.truth import InterestTruth, ReaderTruth
from schemas.article import Article
from schemas.clients.memory_models import MemoryEmbedder
from schemas.config import Api
from schemas.profile import Signal, UserProfile

READER = HeldOutReader(
    "u",
    UserProfile(
        "u",
        search=(Signal(1, "e1", "canal freight"), Signal(4, "e4", "opera tickets")),
        click=(Signal(2, "e2", "Tanker blocks canal", "", "a0"), Signal(3, "e3", "Dockers strike", "", "a9")),
    ),
    frozenset({"a1"}),
)
STRANGER = HeldOutReader("v", UserProfile("v", search=(Signal(1, "e1", "canal freight"),)), frozenset({"a1"}))


def texts(queries: Sequence[Query]) -> list[str]:
    return [query.text for query in queries]


def test_own_signals_are_those_that_the_stream_stores() -> None:
    assert texts(own_signals(3)(READER)) == ["Dockers strike", "Tanker blocks canal", "opera tickets"]


def test_the_latest_click_is_one_query_and_falls_back_to_the_latest_signal() -> None:
    assert texts(latest_click(READER)) == ["Dockers strike"]
    assert texts(latest_click(STRANGER)) == ["canal freight"]


def test_what_is_served_has_both_sources_with_their_weights() -> None:
    served = fused(student_lists({"u": ("freight rates",)}), own_signals(1), student_weight=0.5, signal_weight=2.0)
    assert [(row.text, row.source, row.weight) for row in served(READER)] == [
        ("freight rates", "student", 0.5),
        ("Dockers strike", "signals", 2.0),
    ]
    assert texts(served(STRANGER)) == ["canal freight"]


def test_a_weight_of_zero_leaves_the_source_out() -> None:
    served = fused(student_lists({"u": ("freight rates",)}), own_signals(1), student_weight=0.0, signal_weight=1.0)
    assert texts(served(READER)) == ["Dockers strike"]


def test_the_oracle_names_the_interests_of_that_moment() -> None:
    interests = (
        InterestTruth("shipping", ("Nautica", "Orion Lines"), 1.0, 0, 10),
        InterestTruth("opera", ("Mercury Choir",), 1.0, 10, 20),
    )
    truths = {"u": ReaderTruth("u", False, "balanced", "office", interests)}
    assert texts(true_interests(truths, 5)(READER)) == ["Nautica shipping", "Orion Lines shipping"]


def test_popularity_counts_recent_clicks_and_skips_what_was_read() -> None:
    at = 3 * POPULAR_MS
    clicks = ((at - 5, "a1"), (at - 4, "a1"), (at - 3, "a0"), (at - 2, "gone"), (5, "a2"), (6, "a2"), (7, "a2"))
    split = Split(at, (READER,), 0, 0, clicks, {})
    assert popularity(split, frozenset({"a0", "a1", "a2"}))(READER, 10) == ["a1"]


def test_told_popularity_knows_the_later_clicks_of_others_only() -> None:
    split = Split(1, (READER,), 0, 0, (), {"u": ("a5", "a5x"), "w": ("a1", "a2"), "x": ("a2",)})
    ranked = popularity_told(split, frozenset({"a1", "a2", "a5"}), [READER])
    assert ranked(READER, 10) == ["a2", "a1"]
    assert ranked(READER, 1) == ["a2"]


async def test_a_search_system_finds_by_words_and_leaves_out_what_was_clicked() -> None:
    rows = [Article(article_id=f"a{n}", title=t, url="u", source="s", published_at=n) for n, t in enumerate(TITLES)]
    cache = VectorCache(MemoryEmbedder())
    await cache.add(TITLES)
    search = Search(Finder(ExactIndex(rows, cache.of(TITLES)), cache, depth=50), Api())
    rank = await search.system(own_signals(6), [READER])
    ranked = rank(READER, 2)
    assert set(ranked) == {"a1", "a2"}
    assert "a0" not in rank(READER, 50)


TITLES = ["Tanker blocks canal", "Canal freight doubles", "Opera tickets gone", "Bread price"]
