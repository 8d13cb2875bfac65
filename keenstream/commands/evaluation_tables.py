"""An evaluation on the terminal, in eighty columns; evaluation.md and .json, which `--out` writes, hold all of it."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.box import SIMPLE
from rich.table import Column, Table

from keenstream.commands.console import console
from offline.evaluate import table
from offline.evaluate.claims import Finding
from offline.evaluate.evaluation import Evaluation
from offline.evaluate.scores import KEY_METRIC, Difference

SHOWN: Final = ("recall_at_10", "recall_at_50", "ndcg_at_10")
JUDGED: Final = ("ratio", "paper", "wanted", "reached")


def show(evaluation: Evaluation) -> None:
    """Each group's policies, best first; what each is worth beside the others; what the paper claims; on whom."""
    for group in table.groups(evaluation):
        rows = table.ranked(evaluation, group)
        cells = ([row.policy, *(table.metric_cell(row.metrics[name]) for name in SHOWN)] for row in rows)
        _print(f"{group} readers", "policy", [table.SHOWN[name] for name in SHOWN], cells)
    compared = [row for row in table.shown_differences(evaluation) if row.group == "all" and row.metric == KEY_METRIC]
    if compared:
        title = f"{table.SHOWN[KEY_METRIC]}, paired by reader"
        _print(title, "policy / against", ["difference", "ratio"], map(_difference_cells, compared))
    if evaluation.findings:
        _print("What the paper claims", "", JUDGED, map(_finding_cells, table.shown_findings(evaluation)))
    console.print(table.told(evaluation), markup=False)


def _print(title: str, first: str, others: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The first column gives way where there is little room, and no name is cut."""
    figures = (Column(name, no_wrap=True, justify="right") for name in others)
    shown = Table(
        Column(first, overflow="fold"), *figures, title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def _difference_cells(row: Difference) -> list[str]:
    *_, difference, ratio = table.difference_cells(row)
    return [f"{row.policy} / {row.other}", difference, ratio]


def _finding_cells(row: Finding) -> list[str]:
    group = "" if row.group == "all" else f", {row.group}"
    _, _, _, _, metric, *judged = table.finding_cells(row)
    return [f"{row.policy} / {row.other}, {metric}{group}", *judged]
