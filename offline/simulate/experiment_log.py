"""Exposures and outcomes of an A/B test with a known effect, made in vectors for some readers at a time.

    for chunk in generate_log(LogSettings(readers=100_000)):
        chunk.exposures, chunk.outcomes   # columns of schemas/exposure.py, all rows of these readers

Pure: the same settings give the same rows, chunk by chunk; `generate_chunk` makes any of them by itself.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from offline.simulate.log_faults import (
    Planted,
    add_anonymous,
    delay_arrival,
    late_shares,
    lost_clicks,
    plant_in_visits,
    repeat_rows,
    turn_back,
)
from offline.simulate.log_readers import (
    HISTORY,
    Flags,
    Floats,
    Ints,
    LogReaders,
    Visits,
    click_gain,
    draw_readers,
    draw_visits,
    first_visits,
)
from offline.simulate.log_settings import CONTROL, TREATMENT, LogSettings, check_settings, experiment_of
from offline.simulate.log_truth import TruthSums, answer_chances, appeals, looks, truth_of
from schemas.archive import ARRIVED, BROKER_COLUMNS, TIME, archive_schema
from schemas.experiment import Experiment
from schemas.exploration import place_propensity
from schemas.names import Topic

_BOT_CTR: Final = 0.5
_SLOTS: Final = 5
_EXCLUSIVE_SHARE: Final = 0.4
_DAY_SECONDS: Final = 86_400


class LogChunk(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Every row of some readers. Tables have the contract's columns and `kafka_timestamp`; times are int64 UTC ms."""

    first_reader: int
    readers: int
    exposures: pa.Table
    outcomes: pa.Table
    planted: Planted
    truth: TruthSums
    policy_sums: Floats  # [3]: expected clicks by the ranking, in uniform order, and rows; of the experiment's


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """What off-policy evaluation should find: expected clicks of one shown place, over the answers of both arms."""

    policy: str
    value: float


class Shown(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """[rows] each, one for every place of every answer."""

    visit: Ints
    reader: Ints
    place: Ints  # 1 is the top
    rank: Ints  # in the ranking, 1 is the best
    propensity: Floats
    treated: Flags
    inside: Flags  # in the experiment
    scale: Floats  # the chance without place and article
    chance: Floats


def generate_log(settings: LogSettings) -> Iterator[LogChunk]:
    """Chunks of `chunk_readers` readers, in their order. UsageError for settings that do not agree."""
    check_settings(settings)
    experiment = experiment_of(settings)
    for first in range(0, settings.readers, settings.chunk_readers):
        yield generate_chunk(settings, first, experiment)


def generate_chunk(settings: LogSettings, first_reader: int, experiment: Experiment | None = None) -> LogChunk:
    """The readers from `first_reader` on; a function of its arguments."""
    rng = np.random.default_rng([settings.seed, first_reader])
    readers = draw_readers(settings, experiment or experiment_of(settings), first_reader, rng)
    drawn = draw_visits(settings, readers, rng)
    last = len(settings.phase_bounds_ms) - 1
    first_ms = first_visits(drawn, len(readers.number), last).astype(np.float64)
    truth = truth_of(settings, readers, answer_chances(settings, readers), first_ms)
    found = plant_in_visits(drawn, readers, settings.faults, rng)
    shown = _show(settings, readers, found.visits, rng)
    requests = _request_ids(readers, found.visits)
    exposures = _exposures(settings, readers, found.visits, found.crossed, shown, requests, rng)
    outcomes, planted = _outcomes(settings, readers, found.visits, shown, exposures, requests, rng)
    exposures, outcomes, more = _spoil(settings, exposures, outcomes, rng)
    return LogChunk(
        first_reader=first_reader,
        readers=len(readers.number),
        exposures=exposures,
        outcomes=outcomes,
        planted=found.planted + planted + more,
        truth=truth,
        policy_sums=_policy_sums(settings, readers, shown),
    )


def policy_values(sums: Floats) -> list[PolicyValue]:
    """Of the sum of all chunks' `policy_sums`."""
    rows = max(1.0, float(sums[2]))
    return [PolicyValue(policy=name, value=float(sums[n]) / rows) for n, name in enumerate(("ranked", "uniform"))]


def log_schema(topic: str) -> pa.Schema:
    """Of a chunk's table: the archive's columns with times as int64, and when the row reached the log."""
    broker = {field.name for field in BROKER_COLUMNS}
    fields = [field for field in archive_schema(topic) if field.name not in broker or field.name == ARRIVED]
    return pa.schema([pa.field(f.name, pa.int64()) if f.type == TIME else f for f in fields])


def _show(settings: LogSettings, readers: LogReaders, visits: Visits, rng: np.random.Generator) -> Shown:
    rank, propensity = _arranged(settings, visits, rng)
    visit = np.repeat(np.arange(len(visits.reader)), settings.places)
    reader, phase = visits.reader[visit], visits.phase[visit]
    place = np.tile(np.arange(1, settings.places + 1), len(visits.reader))
    inside = phase != HISTORY
    treated = inside & readers.treated[np.maximum(phase, 0), reader]
    gain = np.where(treated, click_gain(settings, readers)[reader], 1.0)
    scale = settings.base_ctr * readers.taste[reader] * gain
    chance = np.minimum(1.0, scale * looks(settings)[place - 1] * appeals(settings)[rank - 1])
    return Shown(
        visit=visit,
        reader=reader,
        place=place,
        rank=rank,
        propensity=propensity,
        treated=treated,
        inside=inside,
        scale=scale,
        chance=np.where(readers.bot[reader], _BOT_CTR, chance),
    )


def _policy_sums(settings: LogSettings, readers: LogReaders, shown: Shown) -> Floats:
    """One article of the pool at a time: [rows] is the largest array."""
    if not settings.exploration:
        return np.zeros(3)
    at = np.flatnonzero(shown.inside)
    appeal, bot = appeals(settings), readers.bot[shown.reader[at]]
    looked = shown.scale[at] * looks(settings)[shown.place[at] - 1]

    def total(liked: Any) -> float:
        return float(np.where(bot, _BOT_CTR, np.minimum(1.0, looked * liked)).sum())

    uniform = sum(total(one) for one in appeal) / settings.pool
    return np.array([total(appeal[shown.place[at] - 1]), uniform, float(len(at))])


def _arranged(settings: LogSettings, visits: Visits, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """[rows] each: ranks and propensities as `schemas.exploration.arrange` gives them, in vectors."""
    ranked = np.arange(1, settings.places + 1)
    share = np.where(visits.phase == HISTORY, 0.0, settings.exploration)
    ranks = np.tile(ranked, (len(visits.reader), 1))
    explored = np.flatnonzero(rng.random(len(visits.reader)) < share)
    order = np.argsort(rng.random((len(explored), settings.pool)), axis=1)
    ranks[explored] = order[:, : settings.places] + 1
    as_ranked = place_propensity(True, settings.pool, settings.exploration)
    elsewhere = place_propensity(False, settings.pool, settings.exploration)
    propensity = np.where(ranks == ranked, as_ranked, elsewhere)
    propensity[share == 0] = 1.0
    return ranks.ravel(), propensity.ravel()


def _request_ids(readers: LogReaders, visits: Visits) -> Any:
    """[v]: the reader and the number of the visit in the chunk."""
    numbers = pa.array(np.arange(len(visits.reader))).cast(pa.string())
    return pc.binary_join_element_wise(pa.array(readers.names[visits.reader], pa.string()), numbers, "-")


def _exposures(
    settings: LogSettings,
    readers: LogReaders,
    visits: Visits,
    crossed: Flags,
    shown: Shown,
    requests: Any,
    rng: np.random.Generator,
) -> pa.Table:
    path = shown.treated & readers.triggered[shown.reader]
    off = pa.array(~path)
    arm: Ints = np.where(shown.inside, 1 + (shown.treated ^ crossed[shown.visit]).astype(np.int64), 0)
    request = requests.take(pa.array(shown.visit))
    at = visits.at_ms[shown.visit]
    offset = rng.integers(0, settings.articles, len(visits.reader))[shown.visit]
    columns = {
        "exposure_id": pc.binary_join_element_wise(request, pa.array(shown.place).cast(pa.string()), ":"),
        "request_id": request,
        "user_id": pa.array(readers.names, pa.string()).take(pa.array(shown.reader)),
        "experiment": _pick(["", settings.name], shown.inside.astype(np.int64)),
        "arm": _pick(["", CONTROL, TREATMENT], arm),
        "phase": np.maximum(visits.phase[shown.visit], 0),
        "triggered": readers.triggered[shown.reader],
        "position": shown.place,
        "article_id": _pick(
            [f"article-{n}" for n in range(settings.articles)], (offset + shown.rank) % settings.articles
        ),
        "propensity": shown.propensity,
        "source": _pick(["recent", "student"], path.astype(np.int64)),
        "query_slot": pc.if_else(off, None, pa.array((shown.rank - 1) % _SLOTS)),
        "exclusive": path & (rng.random(len(path)) < _EXCLUSIVE_SHARE),
        "list_age_ms": pc.if_else(off, None, pa.array(rng.integers(0, 7_200_000, len(visits.reader))[shown.visit])),
        "model": _pick(["", "student"], path.astype(np.int64)),
        "model_version": _pick(["", "1"], path.astype(np.int64)),
        "prompt_version": _pick(["", "p1"], path.astype(np.int64)),
        "reader_signals": readers.signals[shown.reader],
        "exposed_at": at,
        ARRIVED: delay_arrival(at, 0.0, 1.0, rng)[0],
    }
    return _table(columns, Topic.EXPOSURES)


def _outcomes(
    settings: LogSettings,
    readers: LogReaders,
    visits: Visits,
    shown: Shown,
    exposures: pa.Table,
    requests: Any,
    rng: np.random.Generator,
) -> tuple[pa.Table, Planted]:
    """A visit for every answer, a click by its chance, a dwell for every click."""
    clicked = np.flatnonzero(rng.random(len(shown.chance)) < shown.chance)
    on = exposures.take(pa.array(clicked))
    shown_ms = visits.at_ms[shown.visit[clicked]]
    clicked_ms = shown_ms + rng.integers(5_000, 65_000, len(clicked))
    dated_ms, early = turn_back(clicked_ms, shown_ms, settings.faults.negative_lags, rng)
    lost = lost_clicks(shown.treated[clicked], settings.faults.lost_clicks, rng)
    felt = shown.treated[clicked] & readers.triggered[shown.reader[clicked]] & ~readers.bot[shown.reader[clicked]]
    seconds = _dwell_seconds(settings, felt, rng)
    names = pa.array(readers.names, pa.string()).take(pa.array(visits.reader))
    nothing = pa.nulls(len(visits.reader), pa.string())
    ids = on["exposure_id"]
    parts = [
        ("visit", requests, requests, names, nothing, np.ones(len(visits.reader)), visits.at_ms),
        ("click", ids, on["request_id"], on["user_id"], on["article_id"], np.ones(len(clicked)), dated_ms),
        ("dwell", ids, on["request_id"], on["user_id"], on["article_id"], seconds, clicked_ms + 1_000),
    ]
    visits_table, clicks, dwells = (_outcome_table(*part, settings=settings, rng=rng) for part in parts)
    table = pa.concat_tables([visits_table, clicks.filter(pa.array(~lost)), dwells])
    return table, Planted(negative_lags=int((early & ~lost).sum()), lost_clicks=int(lost.sum()))


def _dwell_seconds(settings: LogSettings, felt: Flags, rng: np.random.Generator) -> Floats:
    """[n]: log-normal; its mean is `dwell_seconds`, lifted where the treatment is felt."""
    spread = settings.dwell_spread
    drawn = settings.dwell_seconds * np.exp(rng.normal(-(spread**2) / 2, spread, len(felt)))
    seconds: Floats = np.minimum(_DAY_SECONDS, drawn * np.where(felt, 1 + settings.dwell_lift, 1.0))
    return seconds


def _outcome_table(
    kind: str,
    ids: Any,
    requests: Any,
    users: Any,
    articles: Any,
    values: Floats,
    at_ms: Ints,
    *,
    settings: LogSettings,
    rng: np.random.Generator,
) -> pa.Table:
    columns = {
        "outcome_id": pc.binary_join_element_wise(kind, ids, "-"),
        "request_id": requests,
        "user_id": users,
        "article_id": articles,
        "kind": pa.repeat(kind, len(values)),
        "value": values,
        "occurred_at": at_ms,
        ARRIVED: at_ms,  # until `_spoil` delays it
    }
    return _table(columns, Topic.OUTCOMES)


def _spoil(
    settings: LogSettings, exposures: pa.Table, outcomes: pa.Table, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table, Planted]:
    """Late, repeated and anonymous rows."""
    faults = settings.faults
    treated = pc.unique(exposures["request_id"].filter(pc.equal(exposures["arm"], TREATMENT)))
    shares = late_shares(outcomes, treated, faults)
    arrived, late = delay_arrival(outcomes["occurred_at"].to_numpy(), shares, faults.late_hours, rng)
    at = outcomes.column_names.index(ARRIVED)
    outcomes = outcomes.set_column(at, outcomes.schema.field(ARRIVED), pa.array(arrived))
    repeated, more = repeat_rows(exposures, faults.duplicate_exposures, rng)
    repeated_outcomes, more_outcomes = repeat_rows(outcomes, faults.duplicate_outcomes, rng)
    # nobody's rows are made of those before: a repeated one would be nobody's twice
    nobody, anonymous = add_anonymous(exposures, "exposure_id", faults.anonymous, rng)
    nobody_outcomes, anonymous_outcomes = add_anonymous(outcomes, "outcome_id", faults.anonymous, rng)
    exposures = pa.concat_tables([repeated, nobody.slice(exposures.num_rows)])
    outcomes = pa.concat_tables([repeated_outcomes, nobody_outcomes.slice(outcomes.num_rows)])
    return (
        exposures,
        outcomes,
        Planted(
            exposures=exposures.num_rows,
            outcomes=outcomes.num_rows,
            duplicate_exposures=more,
            duplicate_outcomes=more_outcomes,
            late_outcomes=late,
            anonymous_exposures=anonymous,
            anonymous_outcomes=anonymous_outcomes,
        ),
    )


def _pick(words: list[str], at: Ints) -> Any:
    return pa.array(words, pa.string()).take(pa.array(at))


def _table(columns: dict[str, Any], topic: str) -> pa.Table:
    schema = log_schema(topic)
    made = [columns[field.name] for field in schema]
    return pa.table([pa.array(c) if isinstance(c, np.ndarray) else c for c in made], names=schema.names).cast(schema)
