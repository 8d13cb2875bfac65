"""An evaluation as Markdown: what is shipped with a model, and what a README quotes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from offline.evaluate.claims import Finding
from offline.evaluate.evaluation import Evaluation
from offline.evaluate.metrics import Estimate
from offline.evaluate.scores import GROUPS, KEY_METRIC, Difference, PolicyRow, ReaderGroup

SHOWN: Final = {
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "recall_at_50": "R@50",
    "ndcg_at_10": "N@10",
    "mrr": "MRR",
}
FOUND: Final = ("what", "policy", "against", "readers", "metric", "ratio", "paper", "wanted", "reached")
FEW_MODELS: Final = 3  # of more, not every pair is printed
FILE: Final = "evaluation.md"


def write_table(evaluation: Evaluation, folder: Path) -> Path:
    scratch, path = folder / f"{FILE}.tmp", folder / FILE
    scratch.write_text(markdown(evaluation), encoding="utf-8")
    return scratch.replace(path)


def markdown(evaluation: Evaluation) -> str:
    """What the paper claims, each group's policies, best first, then the paired differences."""
    parts = [f"{told(evaluation)}\n"]
    if evaluation.findings:
        parts += ["**What the paper claims**", "", *_table(FOUND, map(finding_cells, shown_findings(evaluation))), ""]
    for group in groups(evaluation):
        rows = ranked(evaluation, group)
        header = ["policy", *SHOWN.values(), "answered"]
        title = f"**{group} readers** ({max(row.metrics[KEY_METRIC].readers for row in rows):,})"
        parts += [title, "", *_table(header, (_cells(row) for row in rows)), ""]
    if evaluation.differences:
        header = ["policy", "against", "readers", "metric", "difference", "ratio"]
        parts += ["**Paired by reader**", "", *_table(header, map(difference_cells, shown_differences(evaluation))), ""]
    return "\n".join(parts)


def told(evaluation: Evaluation) -> str:
    """In words: on whom and on what."""
    moment = datetime.fromtimestamp(evaluation.at_ms / 1000, UTC)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in evaluation.fused_weights.items())
    fused = f"; weights of lists beside baselines: {weights}" if weights else ""
    return (
        f"{evaluation.readers:,} held-out readers with {evaluation.positives_per_reader} positives each "
        f"({evaluation.without_positives:,} had nothing to find), {evaluation.pool:,} articles {_alive(evaluation)} "
        f"{moment:%Y-%m-%d %H:%M} UTC, {_seeds(evaluation)}; means with half of their 95 % intervals. "
        f"Best baseline, chosen on validation readers: {evaluation.best_baseline}{fused}"
        f"{'; '.join(['', *_asides(evaluation)])}."
    )


def _alive(evaluation: Evaluation) -> str:
    return "alive or published in the window from" if evaluation.later_news else "alive at"


def _asides(evaluation: Evaluation) -> list[str]:
    found = []
    if evaluation.best_sequence:
        found.append(f"best sequence model: {evaluation.best_sequence}")
    if 0 < evaluation.best_of_readers < evaluation.readers:
        found.append(f"best-of-N on {evaluation.best_of_readers:,} of the readers")
    if evaluation.beyond:
        found.append(f"best-of-N also by {', '.join(evaluation.beyond)}")
    if evaluation.reward_weights:
        weights = ", ".join(f"{name} {weight:g}" for name, weight in evaluation.reward_weights.items())
        found.append(f"best-of-N by rewards of the weights {weights}")
    if evaluation.cleaner:
        found.append(f"{evaluation.cleaner} drops {evaluation.dropped:.1%} of the pages and searches")
    for name, count in evaluation.trainings.items():
        if count > 1:
            each = ", ".join(f"{value:.3f}" for value in evaluation.repeats.get(name, ()))
            found.append(f"{name} was trained {count} times (Recall@10 {each})")
    return found


def _seeds(evaluation: Evaluation) -> str:
    return "one seed" if len(evaluation.seeds) == 1 else f"{len(evaluation.seeds)} seeds"


def groups(evaluation: Evaluation) -> list[ReaderGroup]:
    """All, and cold and warm where there are both: one of them alone is the same as all."""
    present = {row.group for row in evaluation.rows}
    return list(GROUPS) if present == set(GROUPS) else ["all"]


def ranked(evaluation: Evaluation, group: ReaderGroup) -> list[PolicyRow]:
    """Best first."""
    rows = [row for row in evaluation.rows if row.group == group]
    return sorted(rows, key=lambda row: -row.metrics[KEY_METRIC].mean)


def shown_differences(evaluation: Evaluation) -> list[Difference]:
    """Of few models all; of more those on all readers against baselines and against the model itself. The others are
    in evaluation.json."""
    models = evaluation.trainings
    if len(models) <= FEW_MODELS:
        shown = groups(evaluation)
        return [row for row in evaluation.differences if row.group in shown]
    return [row for row in evaluation.differences if row.group == "all" and not {row.policy, row.other} <= set(models)]


def shown_findings(evaluation: Evaluation) -> list[Finding]:
    shown = groups(evaluation)
    return [row for row in evaluation.findings if row.group in shown]


def finding_cells(row: Finding) -> list[str]:
    """A mark with > is reached when the whole interval lies above it, one with ≥ by the ratio alone."""
    return [
        row.what,
        row.policy,
        row.other,
        row.group,
        SHOWN.get(row.metric, row.metric),
        ratio_cell(row.ratio),
        "–" if row.paper is None else f"{row.paper:g}",
        "–" if row.wanted is None else f"{'>' if row.apart else '≥'} {row.wanted:g}",
        "–" if row.reached is None else ("yes" if row.reached else "no"),
    ]


def difference_cells(row: Difference) -> list[str]:
    gained, ratio = row.difference, row.ratio
    return [
        row.policy,
        row.other,
        row.group,
        SHOWN.get(row.metric, row.metric),
        f"{gained.mean:+.3f} ({gained.low:+.3f} to {gained.high:+.3f})",
        ratio_cell(ratio),
    ]


def ratio_cell(ratio: Estimate | None) -> str:
    return f"{ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""


def metric_cell(value: Estimate) -> str:
    return f"{value.mean:.3f} ±{(value.high - value.low) / 2:.3f}"


def _cells(row: PolicyRow) -> list[str]:
    return [row.policy, *(metric_cell(row.metrics[name]) for name in SHOWN), f"{row.answered:.0%}"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(header), _line("---" for _ in header), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
