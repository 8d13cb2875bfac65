"""One off-policy evaluation from files to files, beside `analyse`."""

from pathlib import Path
from typing import Final

from offline.experiments.analyse import Progress, make_plan, run_pipeline, scratch_folder
from offline.experiments.definition import Analysis
from offline.experiments.log_columns import Column
from offline.experiments.offpolicy_job import build_offpolicy, read_policy_totals
from offline.experiments.offpolicy_report import OffPolicyReport, build_offpolicy_report
from offline.experiments.quarantine import TARGET
from offline.experiments.whole_files import write_json
from offline.runners import RunnerSettings
from schemas.errors import UsageError

REPORT: Final = "offpolicy.json"


def evaluate_policies(
    analysis: Analysis,
    log: Path,
    out: Path,
    *,
    now_ms: int,
    settings: RunnerSettings = RunnerSettings(),  # noqa: B008  # frozen
    progress: Progress = lambda step, done, total: None,
) -> OffPolicyReport:
    """Writes offpolicy.json and, when there are bad rows, quarantine/*.parquet below `out`."""
    if analysis.offpolicy is None:
        raise UsageError("the analysis has no table [offpolicy]: it names the policies to be judged")
    with scratch_folder(out) as scratch:
        plan, given = make_plan(analysis, log, out, scratch, now_ms, _target_columns(analysis))
        run_pipeline(plan, build_offpolicy, settings, progress)
        report = build_offpolicy_report(read_policy_totals(plan.result_path), analysis, given)
    write_json(out / REPORT, report)
    return report


def _target_columns(analysis: Analysis) -> list[Column]:
    policies = analysis.offpolicy.policies if analysis.offpolicy else ()
    return [
        Column(name=f"{TARGET}{n}", type="number", source=policy.column, required=True, nullable=False)
        for n, policy in enumerate(policies)
        if policy.column is not None
    ]
