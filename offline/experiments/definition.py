"""What an analysis is about: one TOML file, checked before a byte of the log is read."""

import difflib
import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from offline.experiments.gates import Gates
from schemas.errors import UsageError
from schemas.experiment import Experiment, Name, Share, check_experiment
from schemas.names import Topic

Role = Literal["primary", "secondary", "guardrail"]
Counted = Literal["click", "dwell", "visit", "impression", "request"]
Aggregate = Literal["count", "sum", "any", "days", "articles"]
Decision = Literal["confidence-sequence", "group-sequential", "fixed"]
Correction = Literal["holm", "benjamini-hochberg"]
Constant = str | int | float | bool
Hours = Annotated[float, msgspec.Meta(gt=0)]
Days = Annotated[float, msgspec.Meta(gt=0, le=3_650)]
Alpha = Annotated[float, msgspec.Meta(gt=0, lt=0.5)]


class Count(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number for each user, over what happened from the user's first exposure on.

    `count`: how many; `sum`: of their values (dwell seconds); `any`: 1 or 0; `days`: distinct days (activity, DAU);
    `articles`: distinct articles.
    """

    of: Counted
    aggregate: Aggregate = "count"
    after_days: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # retention: only what happened from this age on
    exclusive: bool = False  # only with articles that no other path would have brought
    cap: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] | None = None  # quantile of all users at which values are cut


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mean or proportion (no denominator), a ratio, or a quantile of the numerator."""

    name: Name
    role: Role = "secondary"
    numerator: Count
    denominator: Count | None = None
    quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    higher_is_better: bool = True
    margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = (
        None  # of a guardrail: how much worse it may get, by its control
    )
    cuped: bool = True
    # a column of the exposures instead of the metric's own history: a prediction of the metric, made without anything
    # that happened from the first exposure on (CUPAC). That of the first exposure counts; null is 0
    covariate: str | None = None


class Trust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold for a verdict."""

    sample_ratio_p_value: Alpha = 0.001
    max_crossover_share: Share = 0.01
    max_quarantined_share: Share = 0.01
    max_reassigned_share: Share = 0.001  # logged in another arm than `assign_arm` gives
    balance_p_value: Alpha = 0.001  # below it, what should be alike in all arms is not: a warning
    # of answers, exposures of outcomes, and clicks, that the log lost: with such a p-value and so much more in one arm
    # than in another, the verdict is blocked
    max_loss_difference: Share = 0.01
    max_leaked_share: Share = 0.001  # of places in arms without the path: brought by it all the same
    late_hours: Hours = 1.0  # after it happened, an outcome that arrives is late


class LogFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the log is below its folder, and what its columns are called when they are not the contract's.

    A column's name in the contract (schemas/exposure.py) = its name in the file; a constant stands for a column that
    the files do not have.
    """

    exposures: str = Topic.EXPOSURES  # a folder (all files below it), a file, or a glob
    outcomes: str = Topic.OUTCOMES
    exposure_columns: dict[str, str] = {}
    outcome_columns: dict[str, str] = {}
    exposure_constants: dict[str, Constant] = {}
    outcome_constants: dict[str, Constant] = {}
    check_assignment: bool = True  # False: another system than `assign_arm` drew the arms
    arrived_at: str = "kafka_timestamp"  # of outcomes: the column with when a row reached the log, if there is one


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another policy, by exactly one of the two: what to show is judged by a log, not by this system.

    `column`: of the exposures, with the probability that this policy puts the shown article at its place.
    `exploration`: the ranking that was logged, with this share of answers in random order (schemas/exploration.py).
    """

    name: Name
    column: str | None = None
    exploration: Share | None = None


class OffPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `keenstream experiment offpolicy` asks. Differences are to the logged policy."""

    policies: Annotated[tuple[Policy, ...], msgspec.Meta(min_length=1)]
    arms: tuple[Name, ...] = ()  # whose answers are read; default: the arms that explore, or all when none does
    reward: Literal["click", "dwell"] = "click"  # of the shown article, within the window: 1, or the seconds
    clip: Annotated[float, msgspec.Meta(ge=1)] = 10.0  # the largest weight of the clipped estimate
    gates: Gates = Gates()


class Analysis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment, its metrics, and how certain the answer must be."""

    experiment: Experiment
    control: Name
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1)]
    starts_at: datetime | None = None  # default: the first phase
    ends_at: datetime | None = None  # the watermark: what is later is not there yet; default: the last event
    window_days: Days = 1.0  # an outcome counts this long after a user's first exposure
    history_days: Days = 14.0  # before it: the covariate
    cold_signals: Annotated[int, msgspec.Meta(ge=0)] = 3  # at first exposure: at most so many make a cold reader
    alpha: Alpha = 0.05
    # how the primary metric is judged: at any look, at daily looks up to `expected_users`, or once at the end
    decision: Decision = "confidence-sequence"
    expected_users: Annotated[int, msgspec.Meta(gt=0)] | None = None
    # of secondary metrics: no false finding among all (holm), or few among those found (benjamini-hochberg)
    correction: Correction = "holm"
    only_triggered: bool = False
    list_age_hours: tuple[Hours, ...] = (1.0, 6.0, 24.0, 72.0)  # rising: bounds of the ages that places are counted by
    # more requests than this in `history_days`, before the first exposure, make a bot: in no metric, but counted. Never
    # by what came after: a treatment that readers like would turn them into bots
    bot_requests: Annotated[int, msgspec.Meta(gt=0)] = 3_000
    trust: Trust = Trust()
    log: LogFiles = LogFiles()
    offpolicy: OffPolicy | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The control first."""
        others = (arm.name for arm in self.experiment.arms if arm.name != self.control)
        return (self.control, *others)


def read_analysis(path: Path) -> Analysis:
    """The analysis in `path`; UsageError names the field and what is wrong with it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        found = msgspec.convert(raw, Analysis)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}{_meant(str(error))}") from error
    return check_analysis(found)


def _meant(fault: str) -> str:
    """The field that a misspelt one is nearest to."""
    unknown = re.search(r"unknown field `(.+?)`", fault)
    if unknown is None:
        return ""
    _, structs = msgspec.json.schema_components([Analysis])
    known = {field for struct in structs.values() for field in struct.get("properties", {})}
    near = difflib.get_close_matches(unknown[1], sorted(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def check_analysis(analysis: Analysis) -> Analysis:
    """`analysis`, when its parts agree."""
    check_experiment(analysis.experiment)
    if analysis.experiment.arm(analysis.control) is None:
        raise UsageError(f"control: there is no arm {analysis.control}")
    names = [metric.name for metric in analysis.metrics]
    if len(set(names)) < len(names):
        raise UsageError("metrics: two of them have the same name")
    if sum(metric.role == "primary" for metric in analysis.metrics) != 1:
        raise UsageError("metrics: exactly one must have role = 'primary'")
    if analysis.decision == "group-sequential" and analysis.expected_users is None:
        raise UsageError("decision = 'group-sequential' needs expected_users, guessed before the start")
    for moment in (analysis.starts_at, analysis.ends_at):
        if moment is not None and moment.tzinfo is None:
            raise UsageError("starts_at and ends_at need a time zone, as in 2026-11-01T00:00:00Z")
    if list(analysis.list_age_hours) != sorted(set(analysis.list_age_hours)):
        raise UsageError("list_age_hours must rise")
    for metric in analysis.metrics:
        _check_metric(metric, analysis.window_days)
    if analysis.offpolicy is not None:
        _check_policies(analysis.offpolicy, analysis.experiment)
    return analysis


def _check_policies(asked: OffPolicy, experiment: Experiment) -> None:
    names = [policy.name for policy in asked.policies]
    if len(set(names)) < len(names):
        raise UsageError("offpolicy.policies: two of them have the same name")
    for policy in asked.policies:
        if (policy.column is None) == (policy.exploration is None):
            raise UsageError(f"offpolicy.policies: {policy.name} needs either a column or a share of exploration")
    for arm in asked.arms:
        if experiment.arm(arm) is None:
            raise UsageError(f"offpolicy.arms: there is no arm {arm}")


def _check_metric(metric: Metric, window_days: float) -> None:
    where = f"metric {metric.name}"
    if metric.role == "guardrail" and metric.margin is None:
        raise UsageError(f"{where}: a guardrail needs a margin, the share of the control that it may get worse by")
    if metric.quantile is not None and (metric.denominator is not None or metric.numerator.cap is not None):
        raise UsageError(f"{where}: a quantile has no denominator and no cap")
    if metric.covariate is not None and (metric.quantile is not None or not metric.cuped):
        raise UsageError(f"{where}: a covariate is of use for means and ratios with cuped = true only")
    for count in (metric.numerator, metric.denominator):
        if count is not None:
            _check_count(where, count, window_days)


def _check_count(where: str, count: Count, window_days: float) -> None:
    if count.after_days >= window_days:
        raise UsageError(f"{where}: nothing happens after {count.after_days:g} days in a window of {window_days:g}")
    if count.of in ("impression", "request") and count.aggregate == "sum":
        raise UsageError(f"{where}: {count.of}s have no value to sum; use aggregate = 'count'")
    if count.of == "visit" and count.aggregate == "articles":
        raise UsageError(f"{where}: visits name no article")
