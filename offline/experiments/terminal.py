"""The report for the terminal: the verdict, what is wrong with the log, the metrics, and what the path brought."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offline.experiments.report import Report
from offline.experiments.trust import blocked
from offline.experiments.wording import interaction_words, metric_row, novelty_sentence, place_row


def print_report(report: Report, console: Console) -> None:
    """A blocked verdict shows the checks and no effect."""
    for arm, verdict in report.verdicts.items():
        _say(console, f"{arm}: {verdict.sentence}")
    passed = sum(check.status == "passed" for check in report.trust)
    _say(console, f"{passed} of {len(report.trust)} checks passed")
    for check in report.trust:
        if check.status != "passed":
            _say(console, f"  {check.status}: {check.name}: {check.sentence}")
    if blocked(report.trust):
        return
    console.print(_metrics(report))
    for sentence in _notes(report):
        _say(console, sentence)
    if report.places:
        console.print(_places(report))


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, markup=False, soft_wrap=True)


def _metrics(report: Report) -> Table:
    several = len(report.verdicts) > 1
    table = Table("metric", *(["arm"] if several else []), "control", "treatment", "lift", "interval", "p")
    rows = [(f"{row.metric}\n{row.role}", row) for row in report.comparisons]
    rows += [(f"{s.comparison.metric}\n{s.segment} readers", s.comparison) for s in report.segments]
    rows += [(f"{row.metric}\nwith bots", row) for row in report.with_bots]
    for name, comparison in rows:
        row = metric_row(name, comparison)
        arm = [comparison.arm] if several else []
        table.add_row(*map(Text, (name, *arm, row.control, row.treatment, row.lift, row.interval, row.p_value)))
    return table


def _notes(report: Report) -> list[str]:
    """What does not fit into the table: guardrails, cold beside warm readers, whether it lasts."""
    several = len(report.verdicts) > 1
    rows = [metric_row(row.metric + (f", {row.arm}" if several else ""), row) for row in report.comparisons]
    found = [f"{row.name}: {row.note}" for row in rows if row.note]
    differ = {row.comparison.arm: row.interaction for row in report.segments}
    found += [f"{arm}: do cold and warm readers differ? {interaction_words(one)}" for arm, one in differ.items()]
    lasting = report.novelty.items()
    return found + [f"{arm}: by day since first exposure: {novelty_sentence(one)}" for arm, one in lasting]


def _places(report: Report) -> Table:
    table = Table("shown by", "arm", "clicked of shown", "rate", "only by this path")
    before = None
    for row in report.places:
        if row.dimension != before:
            table.add_section()
            before = row.dimension
        words, name = place_row(row), f"{row.dimension} {row.value}" if row.dimension != "all" else row.dimension
        clicked = f"{words['clicked']} of {words['shown']}"
        table.add_row(*map(Text, (name, row.arm, clicked, words["rate"], words["exclusive"])))
    return table
