"""What offpolicy.json holds: for each policy whether it may be judged by this log, and if so its estimates. Pure."""

from typing import Final, Literal

import msgspec

from offline.experiments.definition import Analysis, OffPolicy
from offline.experiments.moments import Moments, NotEnoughData
from offline.experiments.offpolicy import Diagnosis, Estimator, Value, clip_bias_bound, diagnose, value
from offline.experiments.offpolicy_job import OffPolicyTotals, PolicySums
from offline.experiments.report import REPORT_VERSION, LogInput
from offline.experiments.trust import LogCounts

_VALUES: Final[tuple[Estimator, ...]] = (
    *("logged", "ips", "beta-ips", "snips", "clipped", "direct"),
    *("sndr", "doubly-robust"),
)
# of a difference: those that are sums; self-normalised ones are ratios with another denominator for each policy
_DIFFERENCES: Final[tuple[Estimator, ...]] = ("ips", "beta-ips", "clipped", "direct", "doubly-robust")

Status = Literal["estimated", "refused"]


class PolicyReport(msgspec.Struct, frozen=True, kw_only=True):
    """`values` and `differences` are empty when it is refused. All are rewards of one shown place (the item-position
    model: each place of an answer is weighed by its own propensity, never the answer by a product). The interval of the
    direct value holds the chance of readers and not the error of its model: it is there for comparison."""

    policy: str
    status: Status
    sentence: str
    diagnosis: Diagnosis | None = None
    values: list[Value] = []
    clip_bias_bound: float | None = None  # the clipped value may be too low by at most this
    differences: list[Value] = []  # from the logged policy


class OffPolicyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What other policies would have earned. Stable: fields are added, never renamed. Times are UTC milliseconds,
    shares are between 0 and 1."""

    experiment: str
    reward: str
    clip: float
    alpha: float
    watermark_ms: int
    rows: int
    by_chance: int  # rows with a propensity below 1
    policies: list[PolicyReport]
    log: LogCounts
    input: LogInput
    version: str = REPORT_VERSION  # of this form

    @property
    def refused(self) -> bool:
        return any(policy.status == "refused" for policy in self.policies)


def build_offpolicy_report(totals: OffPolicyTotals, analysis: Analysis, given: LogInput) -> OffPolicyReport:
    """Everything from the sums over readers."""
    asked = analysis.offpolicy
    assert asked is not None, "the command has checked it"
    return OffPolicyReport(
        experiment=analysis.experiment.name,
        reward=asked.reward,
        clip=asked.clip,
        alpha=analysis.alpha,
        watermark_ms=totals.watermark_ms,
        rows=totals.rows,
        by_chance=totals.by_chance,
        policies=[_policy(name, sums, totals, asked, analysis.alpha) for name, sums in totals.policies.items()],
        log=totals.log,
        input=given,
    )


def _policy(name: str, sums: PolicySums, totals: OffPolicyTotals, asked: OffPolicy, alpha: float) -> PolicyReport:
    if reason := _refusal(totals):
        return PolicyReport(policy=name, status="refused", sentence=reason)
    try:
        diagnosis = diagnose(sums.moments, sums.largest_weight, asked.gates)
        if diagnosis.failures:
            sentence = "; ".join(diagnosis.failures)
            return PolicyReport(policy=name, status="refused", sentence=sentence, diagnosis=diagnosis)
        return _estimated(name, sums, diagnosis, totals.largest_reward, alpha)
    except NotEnoughData as error:
        return PolicyReport(policy=name, status="refused", sentence=str(error))


def _refusal(totals: OffPolicyTotals) -> str:
    if not totals.rows:
        return "no shown place of these arms has a window that has passed"
    if not totals.by_chance:
        return (
            "the log is deterministic: nothing was left to chance, so no other policy can be judged by it; "
            "give an arm a share of exploration"
        )
    return ""


def _estimated(name: str, sums: PolicySums, diagnosis: Diagnosis, largest_reward: float, alpha: float) -> PolicyReport:
    values = [value(sums.moments, estimator, alpha=alpha) for estimator in _VALUES]
    differences = _differences(sums.apart, alpha)
    robust, logged = values[-1], values[0]
    return PolicyReport(
        policy=name,
        status="estimated",
        sentence=f"{robust.value:.4g} for each shown place (doubly robust), {logged.value:.4g} as logged",
        diagnosis=diagnosis,
        values=values,
        clip_bias_bound=clip_bias_bound(sums.moments, largest_reward),
        differences=differences,
    )


def _differences(apart: Moments, alpha: float) -> list[Value]:
    return [value(apart, estimator, alpha=alpha) for estimator in _DIFFERENCES]
