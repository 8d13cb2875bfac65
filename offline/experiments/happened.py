"""What happened to the readers of a bucket, as arrays: each log line once, readers and requests numbered from 0.

A repeated log line repeats its id; the earliest is kept, for at-least-once delivery only ever repeats later. Ids count
within a reader (encoding.py), so that nothing depends on which readers share a bucket.
"""

from typing import Any, Final, Self, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from offline.experiments.log_columns import COVARIATE

Numbers = NDArray[np.int64]
Ids = NDArray[np.uint64]
Mask = NDArray[np.bool_]

Columns = TypeVar("Columns", bound=msgspec.Struct)

_SLOTS_PER_ROW: Final = 8
NEVER: Final = np.iinfo(np.int64).max
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: multiples lie far apart


class Names(msgspec.Struct, frozen=True, eq=False):
    """A column of names: each row's place among the values, which rise."""

    codes: Numbers  # [n]
    values: pa.Array

    @classmethod
    def of(cls, column: Any) -> Self:
        """`column` is a dictionary without nulls."""
        one = column.unify_dictionaries().combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        one = one.chunk(0) if isinstance(one, pa.ChunkedArray) else one
        order = pc.sort_indices(one.dictionary)
        rank = np.empty(len(order), dtype=np.int64)
        rank[order.to_numpy()] = np.arange(len(order))
        return cls(rank[one.indices.to_numpy()], one.dictionary.take(order))


class Shown(msgspec.Struct, frozen=True, eq=False):
    """Exposures [n]."""

    reader: Numbers
    request: Numbers  # numbered over the bucket
    time: Numbers
    article: Ids
    named: Mask  # there is an article
    inside: Mask  # the experiment
    exclusive: Mask
    triggered: Mask
    arm: Numbers
    phase: Numbers
    signals: Numbers
    place: Numbers
    covariates: NDArray[np.float64]  # [n, metrics that have one]


class Done(msgspec.Struct, frozen=True, eq=False):
    """Outcomes [n], by reader and id: sums of their values have the same bits in whatever order the log was read."""

    row: Numbers  # in the table of outcomes
    reader: Numbers
    request: Numbers  # as in Shown; -1: the log does not hold it, or the outcome names none
    requested: Mask  # it names a request
    answered: Numbers  # when its request was, or NEVER
    time: Numbers
    arrived: Numbers  # at the log, or NEVER
    article: Ids
    named: Mask
    exclusive: Mask  # of an article that no other path would have brought
    kind: Numbers
    value: NDArray[np.float64]

    @property
    def early(self) -> Mask:
        """Dated before their exposure."""
        found: Mask = (self.request >= 0) & (self.time < self.answered)
        return found


class Happened(msgspec.Struct, frozen=True, eq=False):
    readers: pa.Array  # their ids, rising
    arms: pa.Array
    places: pa.Array
    kinds: pa.Array  # of outcomes
    shown: Shown
    done: Done
    answered: Numbers  # [requests]: when; NEVER of those that only outcomes name
    asked_by: Numbers  # [requests]: the reader


def happened(exposures: pa.Table, outcomes: pa.Table) -> Happened:
    """Of coded rows (encoding.py), which hold every row of each reader in them."""
    columns = [*exposures["user_id"].chunks, *outcomes["user_id"].chunks]
    readers = Names.of(pa.chunked_array(columns, exposures["user_id"].type))
    by_exposure, by_outcome = np.split(readers.codes, [exposures.num_rows])
    asked, wanted = key(by_exposure, _ids(exposures["request_id"])[0]), key(by_outcome, _ids(outcomes["request"])[0])
    numbers = pa.array(np.concatenate([asked, wanted])).dictionary_encode()
    request, wants = np.split(numbers.indices.to_numpy().astype(np.int64), [exposures.num_rows])
    arms, places, kinds = (Names.of(column) for column in (exposures["arm"], exposures["place"], outcomes["kind"]))
    shown = _shown(exposures, by_exposure, request, arms.codes, places.codes)
    answered, asked_by = np.full(len(numbers.dictionary), NEVER), np.zeros(len(numbers.dictionary), dtype=np.int64)
    np.minimum.at(answered, shown.request, shown.time)
    asked_by[shown.request] = shown.reader
    done = _done(outcomes, by_outcome, wants, kinds.codes, answered)
    done = msgspec.structs.replace(done, exclusive=_exclusive(done, shown, len(answered)))
    return Happened(readers.values, arms.values, places.values, kinds.values, shown, done, answered, asked_by)


def key(number: Numbers, ids: Ids) -> Ids:
    """One number for a pair."""
    found: Ids = (number.astype(np.uint64) + np.uint64(1)) * _SPREAD ^ ids
    return found


def _shown(rows: pa.Table, reader: Numbers, request: Numbers, arm: Numbers, place: Numbers) -> Shown:
    article, named = _ids(rows["article_id"])
    found = Shown(
        reader=reader,
        request=request,
        time=rows["exposed_at"].to_numpy(),
        article=article,
        named=named,
        inside=rows["inside"].to_numpy(),
        exclusive=rows["exclusive"].to_numpy(),
        triggered=rows["triggered"].to_numpy(),
        arm=arm,
        phase=rows["phase"].to_numpy(),
        signals=rows["reader_signals"].to_numpy(),
        place=place,
        covariates=_covariates(rows),
    )
    ties = (found.time, arm, found.phase, found.signals, place, article, request, found.triggered, found.exclusive)
    kept = once(key(reader, _ids(rows["exposure_id"])[0]), ties)
    return found if kept.all() else _taken(found, np.flatnonzero(kept))


def _covariates(rows: pa.Table) -> NDArray[np.float64]:
    columns = [rows[name].to_numpy() for name in rows.column_names if name.startswith(COVARIATE)]
    return np.stack(columns, axis=1) if columns else np.zeros((rows.num_rows, 0))


def _done(rows: pa.Table, reader: Numbers, request: Numbers, kind: Numbers, answered: Numbers) -> Done:
    """Without what is exclusive."""
    requested = rows["request"].is_valid().to_numpy()
    article, named = _ids(rows["article"])
    at = np.where(requested, answered[request], NEVER)
    found = Done(
        row=np.arange(len(reader)),
        reader=reader,
        request=np.where(at != NEVER, request, -1),
        requested=requested,
        answered=at,
        time=rows["occurred_at"].to_numpy(),
        arrived=pc.fill_null(rows["arrived_at"], NEVER).to_numpy(),
        article=article,
        named=named,
        exclusive=np.zeros(len(reader), dtype=bool),
        kind=kind,
        value=rows["value"].to_numpy(),
    )
    ids = _ids(rows["outcome"])[0]
    ties = (found.time, found.arrived, request, article, kind, found.value)
    kept = np.flatnonzero(once(key(reader, ids), ties))
    rows = kept[np.lexsort((ids[kept], reader[kept]))]
    return _taken(found, rows)


def _exclusive(done: Done, shown: Shown, requests: int) -> Mask:
    """Outcomes with an article that no other path would have brought to their request."""
    reacted = np.zeros(requests, dtype=bool)
    reacted[done.request[done.request >= 0]] = True
    own = shown.exclusive & shown.named & reacted[shown.request]
    found: Mask = np.isin(key(done.request, done.article), key(shown.request[own], shown.article[own]))
    return found & done.named & (done.request >= 0)


def once(keys: Ids, ties: tuple[NDArray[np.generic], ...]) -> Mask:
    """Of the rows [n] with one key that with the least `ties`."""
    kept = np.ones(len(keys), dtype=bool)
    rows = _crowded(keys)
    rows = rows[np.argsort(keys[rows])]
    same = keys[rows[1:]] == keys[rows[:-1]]
    rows = rows[np.append(same, False) | np.append(False, same)] if same.any() else rows[:0]
    ranked = rows[np.lexsort([*(tie[rows] for tie in reversed(ties)), keys[rows]])]
    kept[ranked[1:][keys[ranked[1:]] == keys[ranked[:-1]]]] = False
    return kept


def _crowded(keys: Ids) -> NDArray[np.intp]:
    """The rows that may share their key with another, by its first bits: few, found without sorting all."""
    bits = (_SLOTS_PER_ROW * len(keys)).bit_length()
    slot, rows = (keys >> np.uint64(64 - bits)).astype(np.intp), np.arange(len(keys), dtype=np.int32)
    last = np.zeros(1 << bits, dtype=np.int32)
    last[slot] = rows
    shared = np.zeros(1 << bits, dtype=bool)
    shared[slot[last[slot] != rows]] = True
    return np.flatnonzero(shared[slot])


def _taken(columns: Columns, rows: NDArray[np.intp]) -> Columns:
    """Only these rows of each array."""
    return type(columns)(**{name: getattr(columns, name)[rows] for name in columns.__struct_fields__})


def _ids(column: pa.ChunkedArray) -> tuple[Ids, Mask]:
    """0 where there is none, and where there is one."""
    there = column.is_valid().to_numpy()
    return pc.fill_null(column, 0).to_numpy(), there
