from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from offline.training.examples import SPLITS, Example, FoldReader, Moment, examples_table, read_examples, split_of
from schemas.config import Profiles
from schemas.event import Event, Kind

T, END = 1_000, 2_000
MOMENTS = (Moment(at_ms=T, until_ms=END, training=True), Moment(at_ms=END, until_ms=3_000, training=False))
FOLD = FoldReader(MOMENTS, Profiles(signals_per_domain=3))
READER = next(f"r{n}" for n in range(99) if split_of(f"r{n}") == "training")
WORDS = ["senate vote", "ohio storm", "chiefs win", "google", "chip bill"]  # `google` is cleaned away unless clicked


@st.composite
def events(draw: st.DrawFn, low: int = 0, high: int = 3_500) -> Event:
    kind: Kind = draw(st.sampled_from(("page", "search", "click")))
    number = draw(st.integers(0, 10**6))
    return Event(
        event_id=f"e{number}",
        user_id=READER,
        kind=kind,
        text=draw(st.sampled_from(WORDS)),
        occurred_at=draw(st.integers(low, high)),
        article_id=f"a{draw(st.integers(0, 5))}" if kind == "click" else None,
    )


def folded(rows: Sequence[Event], fold: FoldReader = FOLD) -> list[Example]:
    return fold.extract_output(reduce(fold.add_input, rows, fold.create_accumulator()))


def inputs(examples: Sequence[Example]) -> list[tuple[int, object]]:
    return [(row.at_ms, row.profile) for row in examples]


@given(st.lists(events(high=T), max_size=12), st.lists(events(low=T + 1), max_size=12), st.data())
@settings(max_examples=60)
def test_no_event_after_the_moment_changes_an_input(
    before: list[Event], after: list[Event], data: st.DataObject
) -> None:
    shift = data.draw(st.integers(0, 10_000))
    changed = [replace(row, occurred_at=row.occurred_at + shift, text="something else") for row in after]
    assert inputs(folded(before + after)) == inputs(folded(before + changed)) == inputs(folded(before))


@given(st.lists(events(), max_size=20), st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=60)
def test_order_duplicates_and_partial_merges_change_nothing(rows: list[Event], random: Random, size: int) -> None:
    wanted = folded(rows)
    mixed = rows + rows[::2]
    random.shuffle(mixed)
    parts = [reduce(FOLD.add_input, part, FOLD.create_accumulator()) for part in _parts(mixed, size)]
    assert FOLD.extract_output(FOLD.merge_accumulators([*parts, FOLD.create_accumulator()])) == wanted


def _parts(rows: list[Event], size: int) -> list[list[Event]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def click(at: int, article: str, name: str = "") -> Event:
    return Event(
        event_id=name or f"{at}{article}",
        user_id=READER,
        kind="click",
        text="ohio storm",
        occurred_at=at,
        article_id=article,
    )


def test_clicks_of_the_window_in_order_without_those_that_were_known() -> None:
    rows = [click(T, "known"), click(T + 9, "b"), click(T + 1, "a"), click(T + 2, "known"), click(END, "last")]
    (example,) = folded([*rows, click(END + 1, "later"), click(T + 20, "b", "again")])
    assert example.clicked == ("a", "b", "last")
    assert (example.at_ms, example.until_ms) == (T, END)
    assert [signal.article_id for signal in example.profile.click] == ["known"]


def test_held_out_and_validation_readers_are_seen_at_the_last_moment_only() -> None:
    for user in [f"r{n}" for n in range(60)]:
        (moment,) = FOLD.moments_of(user)
        assert moment.training == (split_of(user) == "training")


def test_shares_of_the_splits() -> None:
    drawn = [split_of(f"reader-{n}") for n in range(20_000)]
    shares = [drawn.count(name) / len(drawn) for name in SPLITS]
    assert shares == pytest.approx([0.45, 0.05, 0.5], abs=0.015)


def test_dropped_events_are_of_nobody() -> None:
    refused = replace(click(1, "a"), consent=False)
    assert folded([refused]) == []


def test_a_shard_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = folded([click(5, "known"), click(T + 1, "a")])
    path = tmp_path / "part.parquet"
    pq.write_table(examples_table(rows), path)
    assert list(read_examples(path)) == rows
