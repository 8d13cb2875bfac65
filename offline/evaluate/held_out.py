"""Readers as the system knows them at a moment, and what they clicked afterwards.

The profile is folded, with the stream's own cleaning, from what had been delivered by that moment; the positives are
the articles clicked after it that were not clicked before. A late event that happened before and came after is neither.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from offline.reader_groups import Group
from offline.reader_groups import group_of as group_of
from offline.simulate import Delivery
from schemas.article import Article
from schemas.cleaning import Dropped, clean_event
from schemas.config import Profiles
from schemas.event import Event
from schemas.profile import UserProfile, fold_event, signal_count


class HeldOutReader(msgspec.Struct, frozen=True):
    """One reader with something to go by and something to be found."""

    user_id: str
    profile: UserProfile
    positives: frozenset[str]


class Split(msgspec.Struct, frozen=True):
    """All readers of a simulation at one moment; clicks of everybody by reader, for measures of popularity."""

    at_ms: int
    readers: tuple[HeldOutReader, ...]
    without_history: int  # nothing left after cleaning at that moment
    without_clicks: int  # nothing clicked later
    clicks_before: tuple[tuple[int, str], ...]  # (occurred_at, article id)
    clicks_after: dict[str, tuple[str, ...]]  # reader: article ids

    def of(self, group: Group, limit: int) -> list[HeldOutReader]:
        """The first readers of a group, by id; no reader is in both groups."""
        return [reader for reader in self.readers if group_of(reader.user_id) == group][:limit]


def hold_out(deliveries: Iterable[Delivery], at_ms: int, settings: Profiles) -> Split:
    """Split everything that was simulated at `at_ms`."""
    profiles: dict[str, UserProfile] = {}
    before: list[tuple[int, str]] = []
    after: defaultdict[str, dict[str, None]] = defaultdict(dict)
    users: set[str] = set()
    for delivery in deliveries:
        event = delivery.event
        users.add(event.user_id)
        if delivery.delivered_at <= at_ms:
            _fold(profiles, event, settings)
            if event.article_id and not delivery.repeat:
                before.append((event.occurred_at, event.article_id))
        elif event.occurred_at > at_ms and event.article_id:
            after[event.user_id][event.article_id] = None
    return _split(at_ms, users, profiles, before, {user: tuple(articles) for user, articles in after.items()})


def pool_of(articles: Iterable[Article], at_ms: int, *, fresh_ms: float, until_ms: float) -> list[Article]:
    """What may be found from the moment `at_ms` until `until_ms`: articles that are no older than `fresh_ms` and not
    expired at the moment, and those that appear after it. With `until_ms` the moment itself: what is alive at it."""
    return [
        article
        for article in articles
        if at_ms - fresh_ms < article.published_at <= until_ms
        and (article.expires_at is None or article.expires_at > at_ms)
    ]


def popular(clicks: Iterable[str]) -> list[str]:
    """Article ids by falling number of clicks."""
    counts = Counter(clicks)
    return sorted(counts, key=lambda article_id: (-counts[article_id], article_id))


def _fold(profiles: dict[str, UserProfile], event: Event, settings: Profiles) -> None:
    cleaned = clean_event(event, languages=settings.languages)
    if not isinstance(cleaned, Dropped):
        profile = profiles.get(event.user_id) or UserProfile(event.user_id)
        profiles[event.user_id] = fold_event(profile, cleaned, signals_per_domain=settings.signals_per_domain)


def _split(
    at_ms: int,
    users: Iterable[str],
    profiles: dict[str, UserProfile],
    before: Sequence[tuple[int, str]],
    after: dict[str, tuple[str, ...]],
) -> Split:
    known = {user for user in users if user in profiles and signal_count(profiles[user])}
    rows = [
        HeldOutReader(user, profiles[user], _positives(profiles[user], after.get(user, ()))) for user in sorted(known)
    ]
    readers = tuple(row for row in rows if row.positives)
    return Split(at_ms, readers, len(set(users) - known), len(rows) - len(readers), tuple(before), after)


def _positives(profile: UserProfile, clicked: Iterable[str]) -> frozenset[str]:
    return frozenset(clicked) - {signal.article_id for signal in profile.click}
