from hypothesis import given
from hypothesis import strategies as st

from schemas.candidates import Hit, QueryHits, merge_candidates


def hits(*ids: str) -> list[Hit]:
    return [Hit(article_id, f"title {article_id}", "", 0.9, 1) for article_id in ids]


def query(name: str, *ids: str, weight: float = 1.0) -> QueryHits:
    return QueryHits(name, "student", weight, hits(*ids))


def test_the_score_is_the_sum_of_weighted_reciprocal_ranks() -> None:
    best, *_ = merge_candidates([query("q1", "a", "b"), query("q2", "b", weight=2.0)], k=2)
    assert best.article_id == "b"
    assert best.score == 1 / 62 + 2 / 61
    assert best.query == "q2"  # the greater vote is credited


def test_seen_articles_are_out() -> None:
    assert [c.article_id for c in merge_candidates([query("q", "a", "b")], k=5, seen={"a"})] == ["b"]


def test_no_query_takes_more_than_its_quota_while_others_have_something() -> None:
    merged = merge_candidates([query("q1", *"abcdef", weight=9.0), query("q2", *"xyz")], k=4, query_quota=0.5)
    assert [c.query for c in merged].count("q1") == 2


def test_places_are_filled_when_the_quota_leaves_some() -> None:
    assert len(merge_candidates([query("q1", *"abcd")], k=4, query_quota=0.5)) == 4


def test_ties_go_by_article_id() -> None:
    merged = merge_candidates([query("q1", "b"), query("q2", "a")], k=2)
    assert [c.article_id for c in merged] == ["a", "b"]


lists = st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), max_size=5)


@given(lists, st.integers(1, 10), st.floats(0.1, 1.0), st.sets(st.sampled_from("abcd")))
def test_merging_gives_distinct_unseen_articles_and_fills_k(
    ranked: list[list[str]], k: int, quota: float, seen: set[str]
) -> None:
    merged = merge_candidates([query(str(n), *ids) for n, ids in enumerate(ranked)], k=k, seen=seen, query_quota=quota)
    found = [candidate.article_id for candidate in merged]
    available = {article_id for ids in ranked for article_id in ids} - seen
    assert len(found) == len(set(found)) == min(k, len(available))
    assert not set(found) & seen
