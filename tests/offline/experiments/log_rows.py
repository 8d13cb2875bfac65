"""Small logs of exposures and outcomes, as the archive holds them."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import pyarrow as pa

from offline.experiments.counting import DAY_MS
from offline.experiments.definition import Analysis, Count, Metric
from schemas.experiment import Arm, Experiment, Phase
from schemas.exposure import Exposure, Outcome

START = datetime(2026, 11, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
HALVES = {"control": 0.5, "treatment": 0.5}
EXPERIMENT = Experiment(
    name="path",
    salt="s1",
    arms=(Arm(name="control", path=False), Arm(name="treatment")),
    phases=(Phase(starts_at=START, weights=HALVES),),
)
CLICKS, IMPRESSIONS = Count(of="click"), Count(of="impression")
ANALYSIS = Analysis(
    experiment=EXPERIMENT,
    control="control",
    window_days=2.0,
    history_days=5.0,
    metrics=(
        Metric(name="ctr", role="primary", numerator=CLICKS, denominator=IMPRESSIONS),
        Metric(name="clicked", numerator=Count(of="click", aggregate="any")),
        Metric(name="dwell", numerator=Count(of="dwell", aggregate="sum"), denominator=CLICKS),
        Metric(name="days", numerator=Count(of="visit", aggregate="days")),
        Metric(name="exclusive", numerator=Count(of="click", aggregate="articles", exclusive=True)),
        Metric(name="retained", numerator=Count(of="visit", aggregate="any", after_days=1.0)),
    ),
)


def table(rows: Sequence[Exposure] | Sequence[Outcome], kind: type[Exposure] | type[Outcome]) -> pa.Table:
    """With times as UTC milliseconds."""
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    found = {}
    for field in msgspec.structs.fields(kind):
        values = [getattr(row, field.name) for row in rows]
        sort = next((types[type(value)] for value in values if value is not None), pa.string())
        found[field.name] = pa.array(values, sort if rows else _EMPTY.get(field.name, pa.string()))
    return pa.table(found)


_EMPTY = {
    "exposed_at": pa.int64(),
    "occurred_at": pa.int64(),
    "phase": pa.int64(),
    "reader_signals": pa.int64(),
    "triggered": pa.bool_(),
    "exclusive": pa.bool_(),
    "value": pa.float64(),
}


def random_log(seed: int, users: int = 12) -> tuple[list[Exposure], list[Outcome]]:
    drawn = random.Random(seed)
    exposures: list[Exposure] = []
    outcomes: list[Outcome] = []
    for user in range(users):
        arm = drawn.choice(["control", "treatment"])
        for request in range(drawn.randrange(0, 6)):
            at = START_MS + round(drawn.uniform(-6, 4) * DAY_MS)
            rows = _answer(drawn, f"u{user}", f"r{user}-{request}", arm, at)
            exposures += rows
            outcomes += _reaction(drawn, rows)
    return exposures, outcomes


def _answer(drawn: random.Random, user: str, request: str, arm: str, at: int) -> list[Exposure]:
    inside = at >= START_MS
    crossed = inside and drawn.random() < 0.05
    return [
        Exposure(
            exposure_id=f"{request}:{position}",
            request_id=request,
            user_id=user,
            experiment="path" if inside else "",
            arm=(arm if not crossed else "treatment") if inside else "",
            triggered=drawn.random() < 0.7,
            position=position,
            article_id=f"a{drawn.randrange(30)}" if position else None,
            propensity=1.0,
            source="student",
            exclusive=drawn.random() < 0.4,
            reader_signals=drawn.randrange(8),
            exposed_at=at,
        )
        for position in (range(1, 4) if drawn.random() < 0.9 else range(1))
    ]


def _reaction(drawn: random.Random, rows: Sequence[Exposure]) -> list[Outcome]:
    found = []
    for row in rows:
        for kind in ("click", "dwell", "visit"):
            if drawn.random() < 0.5:
                late = drawn.choice([-1000, 5_000, DAY_MS // 2, 3 * DAY_MS])
                found.append(
                    Outcome(
                        outcome_id=f"{kind}-{row.exposure_id}",
                        request_id=drawn.choice([row.request_id, row.request_id, None, "lost"]),
                        user_id=row.user_id,
                        article_id=row.article_id if kind != "visit" else None,
                        kind=kind,
                        value=float(drawn.randrange(1, 90)) if kind == "dwell" else 1.0,
                        occurred_at=row.exposed_at + late,
                    )
                )
    return found
