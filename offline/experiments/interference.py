"""Do the arms touch each other? One log cannot measure that, but it shows what was kept apart and what was not."""

from collections.abc import Mapping
from typing import Final

from offline.experiments.check import Check, Status
from offline.experiments.definition import Analysis
from offline.experiments.places import NONE, Dimension
from offline.experiments.tally import Tally

# Stable unit treatment value (Rubin 1980): what one reader is served must not depend on another one's arm.
CAVEAT: Final = (
    "Readers of all arms share the news, the caches, and the models that learn from everybody's clicks. What one arm "
    "does to the other that way is in no figure here; only a split by market or by time could show it."
)
_FEW: Final = 0.01  # of an arm's places: a version below that is a remainder


def interference(tally: Tally, analysis: Analysis) -> list[Check]:
    """Of what was shown within readers' windows."""
    off = [arm.name for arm in analysis.experiment.arms if not arm.path]
    on = [arm.name for arm in analysis.experiment.arms if arm.path]
    return [*([_leaked(tally, analysis, off)] if off and on else []), _versions(tally, on)]


def _leaked(tally: Tally, analysis: Analysis, arms: list[str]) -> Check:
    """Articles of the path before readers who should not have it."""
    shown = leaked = 0
    for arm in arms:
        by_model = _shown(tally, arm, "model")
        shown += sum(by_model.values())
        leaked += sum(by_model.values()) - by_model.get(NONE, 0)
    share, limit = leaked / shown if shown else 0.0, analysis.trust.max_leaked_share
    return Check(
        name="places of the path in arms without it",
        status="passed" if share <= limit else "failed",
        sentence=f"{leaked:,} of {shown:,} in {', '.join(arms)}; at most {limit:.2%} allowed",
        value=share,
    )


def _versions(tally: Tally, arms: list[str]) -> Check:
    """An effect is that of the versions that made it: of several, it is that of no single one."""
    mixed, said = False, []
    for arm in arms:
        for dimension in ("model", "prompt"):
            shares = _shares(tally, arm, dimension)
            mixed |= len(shares) > 1
            if shares:
                parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
                said.append(f"{arm}, {dimension}: {parts}")
    status: Status = "warning" if mixed else "passed"
    sentence = "; ".join(said) or "no place names a model"
    return Check(name="one version of model and prompt", status=status, sentence=sentence)


def _shares(tally: Tally, arm: str, dimension: Dimension) -> Mapping[str, float]:
    """Of the path's own places; those of a few places left out."""
    shown = {name: count for name, count in _shown(tally, arm, dimension).items() if name != NONE}
    total = sum(shown.values())
    return {name: count / total for name, count in shown.items() if count >= _FEW * total}


def _shown(tally: Tally, arm: str, dimension: Dimension) -> dict[str, int]:
    rows = sorted(tally.recall.places.items(), key=lambda row: row[0])
    return {key.value: sums.totals[0] for key, sums in rows if (key.arm, key.dimension) == (arm, dimension)}
