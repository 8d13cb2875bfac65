"""What cleaning by the served cleaner is worth: the own signals of the same readers, cleaned by rules alone, by both,
and by the truth that only a simulator knows."""

from collections.abc import Container, Sequence

import msgspec

from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.metrics import Estimate, paired_difference, recall_at_k
from offline.evaluate.systems import Rank
from schemas.clients.models import Cleaner
from schemas.noise import judged_texts, without_noise
from schemas.profile import Signals, UserProfile

RULES_ALONE = "own signals, cleaned by rules alone"
NO_NOISE = "own signals without noise (oracle)"
DEEP = 50


class Cleaned(msgspec.Struct, frozen=True):
    """Readers as the workers read them."""

    readers: list[HeldOutReader]
    version: str  # of the cleaner's weights
    dropped: float  # share of the readers' pages and searches


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """Recall of one cleaning minus that of the rules alone, paired by reader."""

    gap: float
    system: str
    recall_at_10: Estimate
    recall_at_50: Estimate
    dropped: float  # share of the readers' pages and searches that the rules had let pass
    version: str = ""  # of the cleaner's weights


async def cleaned_by(cleaner: Cleaner, readers: Sequence[HeldOutReader], *, latest: int) -> Cleaned:
    """As the stream does (stream/interests/cleaning.py). Raises the cleaner's error."""
    texts = sorted({text for reader in readers for text in judged_texts(reader.profile, latest=latest)})
    verdicts = await cleaner.judge(texts)
    noise = frozenset(text for text, found in zip(texts, verdicts.noise, strict=True) if found)
    after = [with_profile(reader, without_noise(reader.profile, noise)) for reader in readers]
    return Cleaned(after, verdicts.model_version, dropped_share(readers, after))


def without_true_noise(readers: Sequence[HeldOutReader], noise: Container[str]) -> list[HeldOutReader]:
    """Without the events whose ids are in `noise`: what a cleaner that is never wrong would leave."""

    def kept(signals: Signals) -> Signals:
        return tuple(signal for signal in signals if signal.event_id not in noise)

    def cleaned(profile: UserProfile) -> UserProfile:
        left = msgspec.structs.replace(profile, page=kept(profile.page), search=kept(profile.search))
        return left if left.page or left.search or left.click else profile

    return [with_profile(reader, cleaned(reader.profile)) for reader in readers]


def with_profile(reader: HeldOutReader, profile: UserProfile) -> HeldOutReader:
    return msgspec.structs.replace(reader, profile=profile)


def dropped_share(before: Sequence[HeldOutReader], after: Sequence[HeldOutReader]) -> float:
    """Of the pages and searches."""
    counts = [sum(len(row.profile.page) + len(row.profile.search) for row in rows) for rows in (before, after)]
    return 1 - counts[1] / counts[0] if counts[0] else 0.0


def gain_of(
    name: str,
    gap: float,
    before: tuple[Rank, Sequence[HeldOutReader]],
    after: tuple[Rank, Sequence[HeldOutReader]],
    *,
    seed: int,
    version: str = "",
) -> Gain:
    """Both sides are the same readers in the same order, each with its own ranking."""
    ten, fifty = (paired_difference(_recalls(*after, k), _recalls(*before, k), seed=seed) for k in (10, DEEP))
    return Gain(
        gap=gap,
        system=name,
        recall_at_10=ten,
        recall_at_50=fifty,
        dropped=dropped_share(before[1], after[1]),
        version=version,
    )


def _recalls(rank: Rank, readers: Sequence[HeldOutReader], k: int) -> list[float]:
    return [recall_at_k(rank(reader, k), reader.positives, k) for reader in readers]
