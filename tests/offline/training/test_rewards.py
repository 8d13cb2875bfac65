import math
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.training.news_index import NewsIndex, TextVectors, check_covers
from offline.training.rewards import (
    BEYOND,
    PAPER,
    Align,
    Copying,
    Diversity,
    Hit,
    Structure,
    best_of,
    composite,
    is_valid_list,
    make_rewards,
    queries_of,
)
from schemas.clients.memory_models import MemoryEmbedder
from schemas.errors import UsageError
from schemas.queries import parse_queries
from tests.offline.training.reward_world import Compass, article, index

DIAGONAL = math.sqrt(0.5)  # cosine of 45 degrees


def test_align_is_the_mean_over_queries_of_the_mean_cosine_to_what_they_find() -> None:
    reward = Align(index("east", "north"))  # ten places, two articles
    assert reward(completions=["east; northeast", "west", ""]) == pytest.approx([(0.5 + DIAGONAL) / 2, 0.0, 0.0])


def test_align_looks_at_ten_articles() -> None:
    reward = Align(index(*["east"] * 10, *["west"] * 5))
    assert reward(completions=["east"]) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("east; north", 1.0),
        ("east; northeast", 1 - DIAGONAL),
        ("east; north; northeast", (1 + 2 * (1 - DIAGONAL)) / 3),
        ("east; west", 1.0),  # a distance of 2, cut
        ("east", 0.0),
        ("east; east", 0.0),  # the parser keeps one
        ("", 0.0),
    ],
)
def test_diversity_is_the_mean_pairwise_distance(text: str, value: float) -> None:
    assert Diversity(TextVectors(Compass()))(completions=[text]) == pytest.approx([value], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (" nfl trades; Senate vote", True),
        ("nfl trades", True),
        ("one a; two b; three c; four d; five e", True),
        ("one a; two b; three c; four d; five e; six f", False),
        ("nfl trades;", False),
        ("nfl trades; nfl trades", False),
        ("nfl trades\nSenate vote", False),
        ("nfl nfl nfl nfl", False),
        ("http://spam.example", False),
        ("", False),
    ],
)
def test_structure_wants_a_list_that_the_parser_keeps_whole(text: str, valid: bool) -> None:
    assert Structure()(completions=[text]) == [float(valid)]


@given(st.lists(st.text(string.ascii_lowercase + " ", min_size=1, max_size=12), max_size=7))
def test_what_the_parser_gave_is_a_valid_list(pieces: list[str]) -> None:
    queries = parse_queries("; ".join(pieces))
    assert is_valid_list("; ".join(queries)) is bool(queries)


def test_a_hit_is_credited_to_the_query_that_ranks_the_article_best() -> None:
    hit = Hit(index("east", "north", "west"))
    assert hit.credits(["north", "east"], ["a0", "a1", "unknown"]) == [0.5, 0.5]
    assert hit.credits(["nearly east", "east"], ["a0"]) == [1.0, 0.0]  # both rank it first
    assert hit(completions=["east", "", "east"], clicked=[["a0"], ["a0"], ["unknown"]]) == [1.0, 0.0, None]


def test_a_hit_beyond_the_tenth_place_is_none() -> None:
    hit = Hit(index(*["east"] * 10, "west"))
    assert hit(completions=["east"], clicked=[["a10", "a0"]]) == [0.5]


def test_copying_is_minus_the_share_of_queries_that_are_a_signal() -> None:
    values = Copying()(
        completions=["Chip bill passes Senate; storm in Ohio", "Senate chips", ""],
        signals=[["Senate passes chip bill"]] * 3,
    )
    assert values == [-0.5, 0.0, 0.0]


def test_rewards_read_chats_as_they_read_texts() -> None:
    chat = [{"role": "assistant", "content": "east; north"}]
    assert queries_of(chat) == ("east", "north")
    assert Structure()(prompts=["p"], completions=[chat], completion_ids=[[1]]) == [1.0]


def test_every_reward_pickles_and_answers_the_same() -> None:
    articles = [article(f"a{n}", title) for n, title in enumerate(["storm in ohio", "senate vote", "chiefs win"])]
    rewards = make_rewards(NewsIndex(articles, TextVectors(MemoryEmbedder())), beyond=BEYOND)
    assert tuple(rewards) == (*PAPER, "hit", "copying")  # expected_hit needs readers: loading.py
    batch = {
        "prompts": ["p", "p"],
        "completions": ["ohio storm; senate", "chiefs"],
        "signals": [["storm", "senate vote"]] * 2,
        "clicked": [["a0"]] * 2,
    }
    for name, reward in rewards.items():
        assert reward.__name__ == name
        assert pickle.loads(pickle.dumps(reward))(**batch) == reward(**batch)  # noqa: S301  # our own bytes


def test_parts_are_logged_through_trl() -> None:
    logged: dict[str, float] = {}
    Align(index("east", "north"))(completions=["east; northeast"], log_metric=logged.__setitem__)
    assert logged == pytest.approx({"align/queries": 2.0, "align/worst_query": 0.5})


def test_each_text_is_embedded_once() -> None:
    embedder = Compass()
    rewards = make_rewards(NewsIndex([article("a0", "east"), article("a1", "north")], TextVectors(embedder)))
    for _ in range(2):
        composite(rewards, ["west; south", "south"], signals=[["northeast"], ["northeast"]])
    embedded = [text for call in embedder.calls for text in call]
    assert sorted(set(embedded)) == sorted(embedded)
    assert len(embedder.calls) <= 4  # articles, headlines, queries, signals


def test_the_composite_weighs_and_lets_abstentions_add_nothing() -> None:
    rewards = {"one": lambda **batch: [1.0, None], "two": lambda **batch: [0.5, 0.25], "off": lambda **batch: 1 / 0}
    assert composite(rewards, ["a", "b"], {"two": 2.0, "off": 0.0}) == [2.0, 0.5]  # type: ignore[arg-type]


def test_best_of_n_takes_the_best_of_the_first_n() -> None:
    assert best_of([0.1, 0.3, 0.2, 0.5, 0.5, 0.6], samples=3) == [[0, 0], [1, 0], [1, 2]]


def test_an_index_without_articles_or_older_than_the_examples_is_refused() -> None:
    with pytest.raises(UsageError, match="no articles"):
        index()
    old = [article("a0", "east", published_at=5)]
    check_covers(old, 5)
    with pytest.raises(UsageError, match=r"1\.0 days older"):
        check_covers(old, 5 + 86_400_000)
