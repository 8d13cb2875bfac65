"""The reader's profile: a merge, not a counter (design rule 1).

Per kind of event the profile keeps the latest K signals by (occurred_at, event_id), plus `erased_before`. Taking the K
greatest of a union is idempotent, commutative and associative, so duplicates, replays and late events cannot change the
outcome, at-least-once delivery gives an exactly-once result, and the stream and a batch job agree byte for byte.
"""

import hashlib
import sys
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain

import msgspec

from schemas.event import Event, Kind


class Signal(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One event as the profile keeps it. Its order is the merge's order: time, then id; the rest only breaks ties."""

    occurred_at: int
    event_id: str
    text: str
    url: str = ""
    article_id: str = ""
    locale: str = ""


Signals = tuple[Signal, ...]


class UserProfile(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one reader. Each tuple is sorted, oldest first, at most K long."""

    user_id: str
    page: Signals = ()
    search: Signals = ()
    click: Signals = ()
    erased_before: int = 0  # UTC ms: nothing at or before this time is kept

    def of(self, kind: Kind) -> Signals:
        return {"page": self.page, "search": self.search, "click": self.click}[kind]


def signal_of(event: Event) -> Signal:
    return Signal(
        event.occurred_at, event.event_id, event.text, event.url or "", event.article_id or "", event.locale or ""
    )


def fold_event(profile: UserProfile, event: Event, *, signals_per_domain: int) -> UserProfile:
    """`profile` with `event` in it; the very same object when that changes nothing (duplicate, too old, erased)."""
    if event.occurred_at <= profile.erased_before:
        return profile
    before = profile.of(event.kind)
    after = _insert(before, signal_of(event), signals_per_domain)
    return profile if after is before else msgspec.structs.replace(profile, **{event.kind: after})


def merge_profiles(left: UserProfile, right: UserProfile, *, signals_per_domain: int) -> UserProfile:
    """The profile of both histories together. Raises ValueError for two different readers."""
    if left.user_id != right.user_id:
        raise ValueError("profiles of two different readers cannot be merged")
    erased_before = max(left.erased_before, right.erased_before)

    def merged(ours: Signals, theirs: Signals) -> Signals:
        kept: Signals = ()
        for signal in chain(ours, theirs):
            if signal.occurred_at > erased_before:
                kept = _insert(kept, signal, signals_per_domain)
        return kept

    return UserProfile(
        left.user_id,
        merged(left.page, right.page),
        merged(left.search, right.search),
        merged(left.click, right.click),
        erased_before,
    )


def erase_before(profile: UserProfile, erased_before: int) -> UserProfile:
    """`profile` without anything at or before `erased_before` (UTC ms), and closed to late events of that time."""
    return merge_profiles(
        profile, UserProfile(profile.user_id, erased_before=erased_before), signals_per_domain=sys.maxsize
    )


def encode_profile(profile: UserProfile) -> bytes:
    """The one canonical encoding: equal profiles have equal bytes."""
    return _encoder.encode(profile)


def decode_profile(data: bytes) -> UserProfile:
    return _decoder.decode(data)


def fingerprint(profile: UserProfile) -> str:
    """Equal exactly when the canonical encodings are equal (128-bit BLAKE2)."""
    return hashlib.blake2b(encode_profile(profile), digest_size=16).hexdigest()


def latest_signals(profile: UserProfile) -> Iterator[tuple[Kind, Signal]]:
    """All signals with their kind, newest first; equal texts (by case and spacing) only at their newest."""
    kinds: tuple[Kind, ...] = ("page", "search", "click")
    rows = sorted(((signal, kind) for kind in kinds for signal in profile.of(kind)), reverse=True)
    told: set[str] = set()
    for signal, kind in rows:
        key = " ".join(signal.text.casefold().split())
        if key not in told:
            told.add(key)
            yield kind, signal


def seen_articles(profile: UserProfile) -> frozenset[str]:
    """Ids of the articles that the reader has clicked, as far as the profile remembers."""
    return frozenset(signal.article_id for signal in profile.click if signal.article_id)


def signal_count(profile: UserProfile) -> int:
    return len(profile.page) + len(profile.search) + len(profile.click)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(UserProfile)


def _insert(signals: Signals, signal: Signal, limit: int) -> Signals:
    """Sorted insertion by (occurred_at, event_id). One key keeps its greatest signal, which makes the merge lawful
    even when a producer reuses an id with another text."""
    at = bisect_left(signals, (signal.occurred_at, signal.event_id), key=_key)
    if at < len(signals) and _key(signals[at]) == _key(signal):
        return signals if signals[at] >= signal else (*signals[:at], signal, *signals[at + 1 :])
    if len(signals) < limit:
        return (*signals[:at], signal, *signals[at:])
    return signals if at == 0 else (*signals[1:at], signal, *signals[at:])


def _key(signal: Signal) -> tuple[int, str]:
    return signal.occurred_at, signal.event_id
