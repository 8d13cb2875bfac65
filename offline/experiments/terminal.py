"""The report for the terminal: the verdict, what is wrong with the log, and the metrics as a table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offline.experiments.report import Report
from offline.experiments.trust import blocked
from offline.experiments.wording import metric_row, novelty_sentence


def print_report(report: Report, console: Console) -> None:
    """A blocked verdict shows the checks and no effect."""
    for arm, verdict in report.verdicts.items():
        console.print(f"{arm}: {verdict.sentence}", markup=False, soft_wrap=True)
    passed = sum(check.status == "passed" for check in report.trust)
    console.print(f"{passed} of {len(report.trust)} checks passed", markup=False)
    for check in report.trust:
        if check.status != "passed":
            console.print(f"  {check.status}: {check.name}: {check.sentence}", markup=False, soft_wrap=True)
    if blocked(report.trust):
        return
    console.print(_metrics(report))
    for arm, found in report.novelty.items():
        console.print(f"{arm}: by day since first exposure: {novelty_sentence(found)}", markup=False, soft_wrap=True)


def _metrics(report: Report) -> Table:
    table = Table("metric", "role", "arm", "control", "treatment", "lift", "interval", "p")
    rows = [(comparison.metric, comparison.role, comparison) for comparison in report.comparisons]
    rows += [(f"{s.comparison.metric}, {s.segment} readers", "segment", s.comparison) for s in report.segments]
    for name, role, comparison in rows:
        row = metric_row(name, comparison)
        cells = (name, role, comparison.arm, row.control, row.treatment, row.lift, row.interval, row.p_value)
        table.add_row(*map(Text, cells))
    return table
