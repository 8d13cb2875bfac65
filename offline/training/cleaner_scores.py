"""How well a cleaner sorts the texts of readers whom nobody trained on: the rules, the model, and both one after the
other.

What is to be dropped is the positive class: precision = of what was dropped, the share that was to be; recall = of what
was to be dropped, the share that was. Every event counts, as often as it came. Intervals: 95 %, readers resampled.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.training.labels import Label
from schemas.cleaning import drop_reason
from schemas.event import Event

RULES: Final = "rules"
CLEANER: Final = "cleaner"
BOTH: Final = "rules + cleaner"
RESAMPLES: Final = 1_000

Texts = Literal["all", "unseen"]  # unseen: those that are no training text, case aside
Flags = NDArray[np.bool_]


class Share(msgspec.Struct, frozen=True):
    """None where nothing was dropped, or nothing was to be."""

    value: float | None
    low: float | None
    high: float | None


class CleanerScore(msgspec.Struct, frozen=True, kw_only=True):
    """One way of cleaning on some texts."""

    system: str
    texts: Texts
    precision: Share
    recall: Share
    wrongly_dropped: float  # share of what was to be kept
    rows: int
    to_drop: int


def dropped_by_rules(rows: Sequence[Label], languages: Collection[str]) -> Flags:
    """What the stream's own rules drop of these texts (schemas/cleaning.py)."""
    known = tuple(languages)
    return np.array([drop_reason(_event(row), row.text, known) is not None for row in rows], dtype=np.bool_)


def _event(row: Label) -> Event:
    return Event(event_id="label", user_id=row.user_id or "nobody", kind=row.kind, text=row.text, occurred_at=0)


def score_cleaners(
    rows: Sequence[Label], dropped: Mapping[str, Flags], training_texts: Collection[str], *, seed: int
) -> list[CleanerScore]:
    """Every system in `dropped` (flags in the order of `rows`), on all texts and on those never seen in training."""
    known = frozenset(text.casefold() for text in training_texts)
    unseen = np.array([row.text.casefold() not in known for row in rows], dtype=np.bool_)
    groups: tuple[tuple[Texts, Flags], ...] = (("all", np.ones(len(rows), dtype=np.bool_)), ("unseen", unseen))
    return [
        _score(name, texts, [row for row, inside in zip(rows, chosen, strict=True) if inside], flags[chosen], seed)
        for texts, chosen in groups
        if chosen.any()
        for name, flags in dropped.items()
    ]


def _score(system: str, texts: Texts, rows: Sequence[Label], dropped: Flags, seed: int) -> CleanerScore:
    wanted = np.array([row.dropped for row in rows], dtype=np.bool_)
    _, reader = np.unique([row.user_id or row.text for row in rows], return_inverse=True)
    counts = [np.bincount(reader, weights=flags).astype(float) for flags in (dropped & wanted, dropped, wanted)]
    hits, drops, wants = counts
    drawn = np.random.default_rng(seed).multinomial(len(hits), np.full(len(hits), 1 / len(hits)), size=RESAMPLES)
    return CleanerScore(
        system=system,
        texts=texts,
        precision=_share(hits, drops, drawn),
        recall=_share(hits, wants, drawn),
        wrongly_dropped=float((dropped & ~wanted).sum() / max(1, (~wanted).sum())),
        rows=len(rows),
        to_drop=int(wanted.sum()),
    )


def _share(part: NDArray[np.float64], whole: NDArray[np.float64], drawn: NDArray[np.int64]) -> Share:
    """Ratio of sums over readers; `drawn` [resamples, readers] says how often each is in a resample."""
    if not whole.sum():
        return Share(None, None, None)
    sums = drawn @ whole
    ratios = (drawn @ part)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Share(float(part.sum() / whole.sum()), float(low), float(high))


def best_threshold(noise: NDArray[np.float64], wanted: Flags, most_wrong: float) -> float:
    """The least probability from which to drop, so that at most the share `most_wrong` of what is to be kept goes.

    Chosen on validation rows. It lies between two probabilities that occur; 1.0 (drop nothing) where none is high
    enough.
    """
    kept = np.sort(noise[~wanted])[::-1]
    allowed = int(most_wrong * len(kept))
    if allowed >= len(kept):
        return 0.0
    higher = noise[noise > kept[allowed]]
    return float((kept[allowed] + higher.min()) / 2) if higher.size else 1.0
