"""The Beam job of `keenstream experiment offpolicy`: the log split by reader as in job.py, then two passes over rows.

buckets ─▶ Rewards by cell ─▶ (all) ─▶ Model of rewards ─▶ Sums of readers ─▶ Add up ─▶ Write
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np

from offline.experiments.adding import AddUp, Node
from offline.experiments.definition import OffPolicy
from offline.experiments.job import Bucket, read_log, rows_of
from offline.experiments.moments import Floats, Moments
from offline.experiments.offpolicy import COLUMNS, paired_sums, row_sums
from offline.experiments.plan import Plan
from offline.experiments.policies import CellSums, Rows, cell_sums, policy_log, policy_rows, reward_model
from offline.experiments.tally_file import array, listed
from offline.experiments.trust import LogCounts
from schemas.errors import KeenstreamError


class PolicySums(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Of one policy, over readers. Addable."""

    moments: Moments
    apart: Moments  # from the logged policy, weights paired
    largest_weight: float = 0.0

    def __add__(self, other: "PolicySums") -> "PolicySums":
        return PolicySums(
            moments=self.moments + other.moments,
            apart=self.apart + other.apart,
            largest_weight=max(self.largest_weight, other.largest_weight),
        )


class OffPolicyTotals(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Addable."""

    policies: dict[str, PolicySums]
    rows: int
    by_chance: int  # rows with a propensity below 1
    largest_reward: float
    log: LogCounts
    watermark_ms: int

    def __add__(self, other: "OffPolicyTotals") -> "OffPolicyTotals":
        return OffPolicyTotals(
            policies={name: sums + other.policies[name] for name, sums in self.policies.items()},
            rows=self.rows + other.rows,
            by_chance=self.by_chance + other.by_chance,
            largest_reward=max(self.largest_reward, other.largest_reward),
            log=self.log + other.log,
            watermark_ms=self.watermark_ms,
        )


class _Fitted(msgspec.Struct, frozen=True, eq=False):
    bucket: Bucket
    cells: CellSums


def build_offpolicy(pipeline: beam.Pipeline, plan: Plan) -> Any:
    """The whole job on `pipeline`; it ends in the file `plan.result_path`."""
    return (
        read_log(pipeline, plan)
        | "Rewards by cell" >> beam.Map(_fit, plan)
        | "Wait for all cells" >> beam.CombineGlobally(beam.combiners.ToListCombineFn()).without_defaults()
        | "Model of rewards" >> beam.FlatMap(_with_model)
        | "Spread the buckets again" >> beam.Reshuffle()
        | "Sums of readers" >> beam.Map(_sums, plan)
        | "Add up" >> beam.CombineGlobally(AddUp()).without_defaults()
        | "Write the totals" >> beam.Map(_write, str(plan.result_path))
    )


def read_policy_totals(path: Path) -> OffPolicyTotals:
    if not path.is_file():
        raise KeenstreamError("the job ended without a result: see its log above")
    return msgspec.json.decode(path.read_bytes(), type=OffPolicyTotals, dec_hook=array)


def asked_of(plan: Plan) -> OffPolicy:
    assert plan.analysis.offpolicy is not None, "the command has checked it"
    return plan.analysis.offpolicy


def _rows(bucket: Bucket, plan: Plan) -> Rows:
    exposures, outcomes = rows_of(bucket.number, plan)
    return policy_rows(exposures, outcomes, plan.analysis, asked_of(plan), watermark_ms=bucket.watermark_ms)


def _fit(bucket: Bucket, plan: Plan) -> _Fitted:
    return _Fitted(bucket, cell_sums(_rows(bucket, plan)))


def _with_model(fitted: Iterable[_Fitted]) -> Iterator[tuple[Bucket, Floats]]:
    first, *rest = sorted(fitted, key=lambda one: one.bucket.number)
    sums = first.cells
    for one in rest:
        sums = sums + one.cells
    model = reward_model(sums)
    for one in (first, *rest):
        yield one.bucket, model


def _sums(given: tuple[Bucket, Floats], plan: Plan) -> tuple[Node, OffPolicyTotals]:
    bucket, model = given
    rows, asked = _rows(bucket, plan), asked_of(plan)
    totals = OffPolicyTotals(
        policies={
            policy.name: _policy_sums(rows, model, target, asked.clip)
            for policy, target in zip(asked.policies, rows.targets, strict=True)
        },
        rows=len(rows.reward),
        by_chance=int((rows.propensity < 1).sum()),
        largest_reward=float(rows.reward.max(initial=0.0)),
        log=bucket.log,
        watermark_ms=bucket.watermark_ms,
    )
    return (0, bucket.number), totals


def _policy_sums(rows: Rows, model: Floats, target: Floats, clip: float) -> PolicySums:
    if not len(rows.reward):
        return PolicySums(moments=Moments.zero(COLUMNS), apart=Moments.zero(COLUMNS))
    other, logged = policy_log(rows, model, target), policy_log(rows, model, rows.propensity)
    return PolicySums(
        moments=Moments.of(row_sums(other, clip=clip)),
        apart=Moments.of(paired_sums(logged, other, clip=clip)),
        largest_weight=float(np.max(target / rows.propensity)),
    )


def _write(totals: OffPolicyTotals, path: str) -> str:
    scratch = Path(path).with_suffix(".tmp")
    scratch.write_bytes(msgspec.json.encode(totals, enc_hook=listed))
    scratch.replace(path)
    return path
