"""Two pictures of an evaluation: every policy's Recall@10 with its interval, and how best-of-N grows."""

import re
from pathlib import Path
from typing import Any

from offline.evaluate.evaluation import Evaluation
from offline.evaluate.scores import KEY_METRIC, PolicyRow

_BEST_OF = re.compile(r"(.*), best of (\d+)")


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """policies.png, and best_of_n.png where a policy has more than one list."""
    rows = [row for row in evaluation.rows if row.group == "all"]
    found = [_saved(_policies(rows, evaluation), folder / "policies.png")]
    curves = best_of_curves(rows)
    return [*found, _saved(_curves(curves), folder / "best_of_n.png")] if curves else found


def best_of_curves(rows: list[PolicyRow]) -> dict[str, list[tuple[int, PolicyRow]]]:
    """By model: (N, its row), from N = 1 on."""
    curves: dict[str, list[tuple[int, PolicyRow]]] = {}
    for row in rows:
        if found := _BEST_OF.fullmatch(row.policy):
            curves.setdefault(found[1], []).append((int(found[2]), row))
    single = {row.policy: row for row in rows}
    for name, points in curves.items():
        if all(n > 1 for n, _ in points):  # on fewer readers N = 1 has a row of its own
            points.append((1, single[name]))
    return {name: sorted(points, key=lambda pair: pair[0]) for name, points in curves.items()}


def _policies(rows: list[PolicyRow], evaluation: Evaluation) -> Any:
    ordered = sorted(rows, key=lambda row: row.metrics[KEY_METRIC].mean)
    values = [row.metrics[KEY_METRIC] for row in ordered]
    figure, axes = _figure(0.28 * len(ordered) + 1.2)
    errors = [[value.mean - value.low for value in values], [value.high - value.mean for value in values]]
    axes.barh([row.policy for row in ordered], [value.mean for value in values], xerr=errors, color="#4878a8")
    axes.set_xlabel(f"Recall@10 of {evaluation.readers:,} held-out readers (95 % intervals)")
    return figure


def _curves(curves: dict[str, list[tuple[int, PolicyRow]]]) -> Any:
    figure, axes = _figure(4.0)
    for name, points in curves.items():
        values = [row.metrics[KEY_METRIC] for _, row in points]
        errors = [[value.mean - value.low for value in values], [value.high - value.mean for value in values]]
        axes.errorbar([n for n, _ in points], [value.mean for value in values], yerr=errors, label=name, capsize=3)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("N: the best of so many lists by the composite reward")
    axes.set_ylabel("Recall@10")
    axes.legend()
    return figure


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(8.0, height), layout="constrained")
    return figure, figure.subplots()


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
