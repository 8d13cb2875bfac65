"""Examples: a reader as known at a moment t, and what that reader clicked in the window after t.

Two ways of splitting at once. By reader: `split_of` (offline/reader_groups.py) keeps half of all readers for
reporting; of the others one in ten validates. By time: validation and held-out readers are seen at the last moment, and
training readers at earlier ones, whose windows end before it. An example's input is folded from events at or before t
alone, with the stream's own cleaning and fold.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from offline.reader_groups import SPLITS as SPLITS
from offline.reader_groups import SplitName as SplitName
from offline.reader_groups import split_of as split_of
from schemas.cleaning import Dropped, clean_event
from schemas.config import Profiles
from schemas.event import Event
from schemas.profile import UserProfile, decode_profile, encode_profile, fold_event, merge_profiles, signal_count

SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("at_ms", pa.int64()),
        pa.field("until_ms", pa.int64()),
        pa.field("profile", pa.binary()),  # canonical (schemas/profile.py)
        pa.field("clicked", pa.list_(pa.string())),
    ]
)


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs end at `at_ms` (included), clicks are those of (at_ms, until_ms]."""

    at_ms: int
    until_ms: int
    training: bool


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """`clicked`: articles in the order of their first click, without those that the profile has clicked."""

    user_id: str
    at_ms: int
    until_ms: int
    profile: UserProfile
    clicked: tuple[str, ...]


class Click(msgspec.Struct, frozen=True, order=True, array_like=True):
    occurred_at: int  # UTC ms
    article_id: str


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a reader for one moment."""

    profile: UserProfile
    clicks: frozenset[Click] = frozenset()  # of the window


class ReaderState(msgspec.Struct, frozen=True, array_like=True):
    """The accumulator: one reader at all moments of the reader's split, and every click up to the last moment."""

    user_id: str
    seen: tuple[Seen, ...]
    history: frozenset[Click] = frozenset()


class FoldReader(beam.CombineFn):  # type: ignore[misc]  # Beam is untyped here
    """Events of ONE reader to a `ReaderState`, in any order, however often each comes: None before the first.

    The profile is a merge (schemas/profile.py) and clicks are a set, so merging is idempotent and commutative.
    """

    def __init__(self, moments: tuple[Moment, ...], settings: Profiles) -> None:
        self._moments, self._settings = moments, settings
        self._last_ms = max(moment.at_ms for moment in moments)

    def create_accumulator(self) -> ReaderState | None:
        return None

    def add_input(self, state: ReaderState | None, event: Event) -> ReaderState | None:
        """Cleaned as the stream does; what is dropped there changes nothing."""
        cleaned = clean_event(event, languages=self._settings.languages)
        if isinstance(cleaned, Dropped):
            return state
        state = state or self._empty(event.user_id)
        moments = self.moments_of(event.user_id)
        seen = tuple(self._see(one, moment, cleaned) for one, moment in zip(state.seen, moments, strict=True))
        history = state.history
        if cleaned.kind == "click" and cleaned.article_id and cleaned.occurred_at <= self._last_ms:
            history = history | {Click(cleaned.occurred_at, cleaned.article_id)}
        return ReaderState(state.user_id, seen, history)

    def merge_accumulators(self, states: Iterable[ReaderState | None]) -> ReaderState | None:
        merged: ReaderState | None = None
        for state in states:
            merged = self._merge(merged, state) if merged and state else merged or state
        return merged

    def extract_output(self, state: ReaderState | None) -> list[Example]:
        """One example for each moment at which something was known."""
        if state is None:
            return []
        rows = zip(state.seen, self.moments_of(state.user_id), strict=True)
        return [_example(seen, moment) for seen, moment in rows if signal_count(seen.profile)]

    def moments_of(self, user_id: str) -> list[Moment]:
        training = split_of(user_id) == "training"
        return [moment for moment in self._moments if moment.training == training]

    def _empty(self, user_id: str) -> ReaderState:
        return ReaderState(user_id, tuple(Seen(UserProfile(user_id)) for _ in self.moments_of(user_id)))

    def _see(self, seen: Seen, moment: Moment, event: Event) -> Seen:
        if event.occurred_at <= moment.at_ms:
            profile = fold_event(seen.profile, event, signals_per_domain=self._settings.signals_per_domain)
            return seen if profile is seen.profile else Seen(profile, seen.clicks)
        if event.occurred_at <= moment.until_ms and event.kind == "click" and event.article_id:
            return Seen(seen.profile, seen.clicks | {Click(event.occurred_at, event.article_id)})
        return seen

    def _merge(self, left: ReaderState, right: ReaderState) -> ReaderState:
        pairs = zip(left.seen, right.seen, strict=True)
        kept = self._settings.signals_per_domain
        seen = tuple(
            Seen(merge_profiles(a.profile, b.profile, signals_per_domain=kept), a.clicks | b.clicks) for a, b in pairs
        )
        return ReaderState(left.user_id, seen, left.history | right.history)


def _example(seen: Seen, moment: Moment) -> Example:
    known = {signal.article_id for signal in seen.profile.click}
    clicked = dict.fromkeys(click.article_id for click in sorted(seen.clicks) if click.article_id not in known)
    return Example(
        user_id=seen.profile.user_id,
        at_ms=moment.at_ms,
        until_ms=moment.until_ms,
        profile=seen.profile,
        clicked=tuple(clicked),
    )


def examples_table(examples: Iterable[Example]) -> pa.Table:
    rows = [msgspec.structs.asdict(row) | {"profile": encode_profile(row.profile)} for row in examples]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_examples(path: Path) -> Iterator[Example]:
    """The rows of one shard."""
    for row in pq.read_table(path, schema=SCHEMA).to_pylist():
        yield Example(**row | {"profile": decode_profile(row["profile"]), "clicked": tuple(row["clicked"])})
