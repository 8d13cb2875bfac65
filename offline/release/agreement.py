"""Whether the served weights write what the trained ones write: int8 rows and bf16 sums may turn a close call."""

from collections.abc import Sequence
from statistics import fmean

import msgspec

from schemas.errors import KeenstreamError, UsageError
from schemas.queries import parse_queries

VALID_LOSS = 0.02  # share of the lists that may become unusable by the conversion; one list always may


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Of the same prompts, greedy."""

    lists: int
    valid: float  # share of the served lists that the parser can use
    valid_before: float  # the same, as trained
    same: float  # share of the lists whose queries are the same
    overlap: float  # mean Jaccard overlap of the sets of queries; two empty lists agree


def agreement(trained: Sequence[str], served: Sequence[str]) -> Agreement:
    """Compare what was written for the same prompts in the same order."""
    if not trained:
        raise UsageError("nothing to compare: name examples with held-out readers")
    before, after = [parse_queries(text) for text in trained], [parse_queries(text) for text in served]
    return Agreement(
        lists=len(before),
        valid=fmean(bool(queries) for queries in after),
        valid_before=fmean(bool(queries) for queries in before),
        same=fmean(ours == theirs for ours, theirs in zip(before, after, strict=True)),
        overlap=fmean(_jaccard(set(ours), set(theirs)) for ours, theirs in zip(before, after, strict=True)),
    )


def check_agreement(found: Agreement, least_overlap: float) -> Agreement:
    """`found`, or an error saying what the conversion broke."""
    if round((found.valid_before - found.valid) * found.lists) > max(1.0, VALID_LOSS * found.lists):
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


def _jaccard(ours: set[str], theirs: set[str]) -> float:
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
