"""Whether the served weights write what the trained ones write: int8 rows and bf16 sums may turn a close call."""

from collections.abc import Sequence
from statistics import fmean

import msgspec
from scipy.stats import binomtest

from schemas.errors import KeenstreamError, UsageError
from schemas.queries import parse_queries

VALID_LOSS = 0.02  # share of the lists that may become unusable by the conversion
CHANCE = 0.05  # level of the one-sided exact sign test: a few lists of close calls go either way


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Of the same prompts, greedy."""

    lists: int
    valid: float  # share of the served lists that the parser can use
    valid_before: float  # the same, as trained
    same: float  # share of the lists whose queries are the same
    overlap: float  # mean Jaccard overlap of the sets of queries; two empty lists agree
    broken: int = 0  # lists usable as trained and not as served
    mended: int = 0  # lists usable as served and not as trained


def agreement(trained: Sequence[str], served: Sequence[str]) -> Agreement:
    """Compare what was written for the same prompts in the same order."""
    if not trained:
        raise UsageError("nothing to compare: name examples with held-out readers")
    before, after = [parse_queries(text) for text in trained], [parse_queries(text) for text in served]
    return Agreement(
        lists=len(before),
        valid=fmean(bool(queries) for queries in after),
        valid_before=fmean(bool(queries) for queries in before),
        broken=sum(bool(ours) and not theirs for ours, theirs in zip(before, after, strict=True)),
        mended=sum(bool(theirs) and not ours for ours, theirs in zip(before, after, strict=True)),
        same=fmean(ours == theirs for ours, theirs in zip(before, after, strict=True)),
        overlap=fmean(_jaccard(set(ours), set(theirs)) for ours, theirs in zip(before, after, strict=True)),
    )


def check_agreement(found: Agreement, least_overlap: float) -> Agreement:
    """`found`, or an error saying what the conversion broke."""
    if _loses_lists(found):
        raise KeenstreamError(
            f"{found.valid:.0%} of {found.lists} served lists are usable, {found.valid_before:.0%} were as trained: "
            "the conversion broke the model"
        )
    if found.overlap < least_overlap:
        raise KeenstreamError(
            f"the served lists share {found.overlap:.0%} of their queries with those of the trained weights, "
            f"{least_overlap:.0%} are wanted: serve it in f32, or lower --overlap if the lists are as good"
        )
    return found


def _loses_lists(found: Agreement) -> bool:
    """More than `VALID_LOSS` of them, and more than chance explains (sign test: McNemar's, exact)."""
    if found.broken - found.mended <= VALID_LOSS * found.lists:
        return False
    changed = found.broken + found.mended
    return bool(binomtest(found.broken, changed, alternative="greater").pvalue < CHANCE)


def _jaccard(ours: set[str], theirs: set[str]) -> float:
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
