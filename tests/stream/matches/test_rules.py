from hypothesis import given
from hypothesis import strategies as st

from schemas.article import Article
from schemas.clients.vector_store import MAX_FOUND, UserQueryHit
from schemas.match import FreshMatch
from stream.matches.rules import (
    HOUR_MS,
    Outcome,
    ReaderMemory,
    announce,
    can_be_forgotten,
    erase,
    fresh_match,
    is_news,
    nearest_readers,
    rows_wanted,
)

NOW = 1_800_000_000_000
hits = st.lists(
    st.builds(
        UserQueryHit,
        user_id=st.sampled_from("abcdef"),
        query=st.text(max_size=3),
        source=st.sampled_from(["student", "signals"]),
        similarity=st.floats(-1, 1),
        generated_at=st.integers(0, NOW),
    )
)


def match(
    article_id: str = "a", *, matched_at: int = NOW, expires_at: int = 10**13, list_age_ms: int = 5
) -> FreshMatch:
    return FreshMatch(
        article_id=article_id,
        user_id="ann",
        title="t",
        url="",
        query="q",
        source="student",
        similarity=0.5,
        list_age_ms=list_age_ms,
        published_at=NOW,
        matched_at=matched_at,
        expires_at=expires_at,
    )


def outcomes(*steps: tuple[int, str], per_reader_hour: int = 2) -> list[Outcome]:
    """What becomes of matches of these articles at these times."""
    memory, found = ReaderMemory(), list[Outcome]()
    for now_ms, article_id in steps:
        memory, outcome = announce(
            memory, match(article_id, matched_at=now_ms), now_ms=now_ms, per_reader_hour=per_reader_hour
        )
        found.append(outcome)
    return found


@given(hits, st.integers(0, 8))
def test_each_reader_is_found_once_by_the_best_query_and_the_most_similar_come_first(
    rows: list[UserQueryHit], most: int
) -> None:
    found = nearest_readers(rows, most)
    best = {user: max(row.similarity for row in rows if row.user_id == user) for user in {row.user_id for row in rows}}
    assert [hit.similarity for hit in found] == sorted(best.values(), reverse=True)[:most]
    assert len({hit.user_id for hit in found}) == len(found)
    assert all(hit.similarity == best[hit.user_id] for hit in found)


@given(hits, st.randoms(use_true_random=False), st.integers(0, 8))
def test_the_order_of_hits_does_not_choose_readers(rows: list[UserQueryHit], random: object, most: int) -> None:
    shuffled = sorted(rows, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert [(h.user_id, h.similarity) for h in nearest_readers(rows, most)] == [
        (h.user_id, h.similarity) for h in nearest_readers(shuffled, most)
    ]


@given(
    st.lists(st.tuples(st.integers(0, HOUR_MS), st.sampled_from("abcdefgh")), max_size=60),
    st.integers(1, 5),
)
def test_in_no_hour_is_a_reader_told_of_more_than_the_bound_nor_twice_of_one_article(
    steps: list[tuple[int, str]], most: int
) -> None:
    now_ms, timed = NOW, []
    for wait_ms, article_id in steps:
        now_ms += wait_ms // 4
        timed.append((now_ms, article_id))
    told = [
        step
        for step, outcome in zip(timed, outcomes(*timed, per_reader_hour=most), strict=True)
        if outcome == "announced"
    ]
    for at, _ in told:
        within = [article for other, article in told if at <= other < at + HOUR_MS]
        assert len(within) <= most
        assert len(set(within)) == len(within)


@given(st.lists(st.integers(0, HOUR_MS), min_size=1, max_size=30), st.integers(1, 5))
def test_a_memory_is_bounded_and_can_be_forgotten_after_an_hour(waits: list[int], most: int) -> None:
    memory, now_ms = ReaderMemory(), NOW
    for number, wait in enumerate(waits):
        now_ms += wait
        memory, _ = announce(memory, match(str(number), matched_at=now_ms), now_ms=now_ms, per_reader_hour=most)
        assert len(memory.announced) <= most
    assert can_be_forgotten(memory, now_ms + HOUR_MS)
    later = now_ms + HOUR_MS
    assert announce(memory, match("x", matched_at=later), now_ms=later, per_reader_hour=most)[1] == "announced"


def test_the_bound_slides() -> None:
    steps = [(NOW, "a"), (NOW + 1, "b"), (NOW + 2, "c"), (NOW + HOUR_MS, "d"), (NOW + HOUR_MS, "e")]
    assert outcomes(*steps) == ["announced", "announced", "hourly bound", "announced", "hourly bound"]


def test_an_article_is_announced_once() -> None:
    assert outcomes((NOW, "a"), (NOW, "a"), (NOW + 5, "a")) == ["announced", "repeated", "repeated"]


def test_what_has_expired_or_lain_for_an_hour_is_not_announced() -> None:
    def outcome(found: FreshMatch) -> Outcome:
        return announce(ReaderMemory(), found, now_ms=NOW, per_reader_hour=5)[1]

    assert outcome(match(expires_at=NOW)) == "expired"
    assert outcome(match(expires_at=NOW + 1)) == "announced"
    assert outcome(match(matched_at=NOW - HOUR_MS)) == "late"
    assert outcome(match(matched_at=NOW - HOUR_MS + 1)) == "announced"


def test_a_list_from_before_an_erasure_announces_nothing_and_a_newer_one_does() -> None:
    memory = erase(ReaderMemory(NOW - 9, announced=()), NOW - 10, NOW)
    assert announce(memory, match(list_age_ms=10), now_ms=NOW, per_reader_hour=5)[1] == "erased"
    memory, outcome = announce(memory, match(list_age_ms=9), now_ms=NOW, per_reader_hour=5)
    assert outcome == "announced"
    assert memory.erased_before == NOW - 10
    assert erase(memory, NOW - 20, NOW) == ReaderMemory(NOW, (), NOW - 10)


def test_only_what_has_just_been_published_is_news() -> None:
    article = Article(article_id="a", title="t", url="", source="s", published_at=NOW - 100, expires_at=NOW + 1)
    assert is_news(article, NOW, 101)
    assert not is_news(article, NOW, 100)
    assert not is_news(article, NOW + 1, 10_000)


def test_a_match_says_why() -> None:
    article = Article(article_id="a", title="t", url="u", source="s", published_at=NOW - 7, expires_at=NOW + 9)
    found = fresh_match(article, UserQueryHit("ann", "rain", "signals", 0.61239, NOW - 50), NOW)
    assert (found.article_id, found.user_id, found.query, found.source) == ("a", "ann", "rain", "signals")
    assert (found.similarity, found.list_age_ms, found.matched_at, found.expires_at) == (0.6124, 50, NOW, NOW + 9)
    early = fresh_match(article, UserQueryHit("ann", "rain", "signals", 0.6, NOW + 50), NOW)
    assert early.list_age_ms == 0


def test_the_rows_asked_for_are_bounded() -> None:
    assert rows_wanted(200) == 800
    assert rows_wanted(10**6) == MAX_FOUND
