"""What the paper claims, as ratios of means on the same readers, beside its own figures and this project's marks.

Models are known by their names (policy_names.py); what was not evaluated is left out. Ratios and not values are
compared, since the paper's definitions of its metrics are not standard. Its figures: arXiv 2602.15005, tables of
offline results, best-of-N, distillation and rewards; the best sequence model there is HSTU.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from offline.evaluate.metrics import Estimate
from offline.evaluate.policy_names import (
    BESIDE,
    BEST_OF,
    CLEANED,
    FUSED,
    OWN_SIGNALS,
    PROMPT_ONLY,
    STORED_SIGNALS,
    STUDENT,
    SUPERVISED,
    TEACHER,
    UNDISTILLED,
    WITHOUT,
)
from offline.evaluate.scores import GROUPS, KEY_METRIC, ReaderGroup, ReaderScore, differences

NDCG: Final = "ndcg_at_10"
DEEP: Final = "recall_at_50"
_BEST_OF_GAIN: Final = {2: 0.294, 4: 0.301, 8: 0.305, 16: 0.307, 32: 0.310}  # Recall@10; .271 for N = 1
_WITHOUT: Final = {"specificity": 0.196, "structure": 0.193, "diversity": 0.179, "align": 0.162, "coverage": 0.115}
_TEACHER: Final = 0.271  # Recall@10 of the paper's teacher


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """`ours` is at least `wanted` times as good as `theirs`; `apart`: the whole 95 % interval lies above it."""

    what: str
    ours: str
    theirs: str
    metric: str = KEY_METRIC
    groups: tuple[ReaderGroup, ...] = ("all",)
    paper: float | None = None  # its ratio
    wanted: float | None = None
    apart: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A claim as measured on a group of readers."""

    what: str
    policy: str
    other: str
    metric: str
    group: ReaderGroup
    ratio: Estimate | None  # None where the other finds nothing
    difference: Estimate
    paper: float | None
    wanted: float | None
    apart: bool
    reached: bool | None  # None without a mark


def findings(scores: Mapping[str, Sequence[ReaderScore]], best: str, sequence: str, *, seed: int) -> list[Finding]:
    """Every claim on policies in `scores`; `best` and `sequence` name the best baseline and sequence model."""
    rows = []
    for claim in _claims(scores.keys(), best, sequence):
        if claim.ours not in scores or claim.theirs not in scores:
            continue
        measured = differences(scores[claim.ours], scores[claim.theirs], seed=seed, metric=claim.metric)
        for row in (row for row in measured if row.group in claim.groups):
            rows.append(
                Finding(
                    what=claim.what,
                    policy=claim.ours,
                    other=claim.theirs,
                    metric=claim.metric,
                    group=row.group,
                    ratio=row.ratio,
                    difference=row.difference,
                    paper=claim.paper,
                    wanted=claim.wanted,
                    apart=claim.apart,
                    reached=_reached(claim, row.ratio),
                )
            )
    return rows


def _reached(claim: Claim, ratio: Estimate | None) -> bool | None:
    if claim.wanted is None or ratio is None:
        return None
    return ratio.low > claim.wanted if claim.apart else ratio.mean >= claim.wanted


def _claims(names: Collection[str], best: str, sequence: str) -> Iterator[Claim]:
    yield from _learning()
    yield from _best_of(names)
    yield from _sequences(sequence)
    yield from _signals(names)
    for model in (TEACHER, STUDENT):
        fused = f"{model}{FUSED}"
        yield Claim(what="the lists added to the best baseline", ours=fused, theirs=best, wanted=1.15)
    yield from _variants(names)
    for name in sorted(name for name in names if name.endswith(CLEANED)):
        yield Claim(what="the cleaner", ours=name, theirs=name.removesuffix(CLEANED))


def _beats(
    what: str, ours: str, theirs: str, paper: float | None = None, groups: tuple[ReaderGroup, ...] = ("all",)
) -> Claim:
    """Better, by more than chance."""
    return Claim(what=what, ours=ours, theirs=theirs, groups=groups, paper=paper, wanted=1.0, apart=True)


def _gain(what: str, ours: str, theirs: str, paper: float | None) -> Iterator[Claim]:
    """Better among ten places, and how much among fifty, for which the paper says nothing."""
    yield _beats(what, ours, theirs, paper)
    yield Claim(what=what, ours=ours, theirs=theirs, metric=DEEP)


def _learning() -> Iterator[Claim]:
    yield Claim(what="reinforcement learning", ours=TEACHER, theirs=PROMPT_ONLY, paper=1.40, wanted=1.40)
    yield Claim(what="distillation", ours=STUDENT, theirs=TEACHER, paper=0.963, wanted=0.97)
    yield Claim(what="distillation", ours=STUDENT, theirs=TEACHER, metric=NDCG, paper=0.975, wanted=0.97)
    yield _beats("on-policy over supervised", STUDENT, SUPERVISED, 1.07)
    yield _beats("supervised over none", SUPERVISED, UNDISTILLED, 1.31)
    yield _beats("on-policy over none", STUDENT, UNDISTILLED, 1.40)


def _best_of(names: Collection[str]) -> Iterator[Claim]:
    for n, paper in _BEST_OF_GAIN.items():
        suffix = BEST_OF.format(n)
        for model in sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix)):
            yield from _gain(f"best of {n} by the rewards", model + suffix, model, round(paper / _TEACHER, 2))


def _sequences(sequence: str) -> Iterator[Claim]:
    for model, paper in ((TEACHER, 1.08), (STUDENT, 1.04)):
        yield _beats("over the best sequence model", model, sequence, paper, GROUPS)


def _signals(names: Collection[str]) -> Iterator[Claim]:
    """The mark is for pages and searches in another language than news has; it is 1.05 where signals are headlines."""
    for name in sorted(name for name in names if name.startswith(OWN_SIGNALS)):
        ours = STUDENT + (CLEANED if name.endswith(CLEANED) else "")
        for metric in (KEY_METRIC, DEEP):
            yield Claim(what="over the reader's own signals", ours=ours, theirs=name, metric=metric, wanted=1.25)
    for metric in (KEY_METRIC, DEEP):
        served = f"{STUDENT}{BESIDE}"
        yield Claim(
            what="lists and own signals, as served, over the signals", ours=served, theirs=STORED_SIGNALS, metric=metric
        )


def _variants(names: Collection[str]) -> Iterator[Claim]:
    """The teacher beside each that lacks a reward; other students and teachers beside the teacher."""
    single = sorted(name for name in names if "," not in name and " + " not in name)
    for name in single:
        if name.startswith(WITHOUT):
            reward = name.removeprefix(WITHOUT)
            paper = round(_TEACHER / _WITHOUT[reward], 2) if reward in _WITHOUT else None
            yield from _gain(f"what the reward {reward} adds", TEACHER, name, paper)
        elif name.startswith((f"{STUDENT}-", f"{TEACHER}-")) and name not in (SUPERVISED, UNDISTILLED):
            yield Claim(what="capacity", ours=name, theirs=TEACHER)
