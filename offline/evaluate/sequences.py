"""Sequence models of clicks, trained here: SASRec, and GRU4Rec as SASRec's training around a GRU.

Both are RecTools' (one data preparation, one loss: softmax over all articles), so that only the layers differ. RecTools
0.19 has no GRU4Rec; Hidasi & Karatzoglou (CIKM 2018) show that loss and sampling matter more than the cell.

They learn from everybody's clicks before the moment, as such models do in production, and answer each reader from that
reader's own. An article that nobody had clicked by then is unknown to them: that is what a sequence of ids is, and part
of the comparison.
"""

import hashlib
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from offline.evaluate.answers import Answer, read_answers, write_answers
from offline.evaluate.policies import Step
from offline.evaluate.sequence_settings import SequenceSettings


def kept_sequence_answers(
    name: str,
    clicks: pa.Table,
    readers: Sequence[str],
    pool: Sequence[str],
    places: int,
    settings: SequenceSettings,
    keep: Path | None,
    step: Step,
) -> list[Answer]:
    """`sequence_answers`, read from the folder `keep` where the same training answered before: it takes minutes."""
    if keep is None:
        return sequence_answers(name, clicks, readers, pool, places, settings, step)
    made_of = [name, clicks.to_pylist(), readers, pool, places, settings, version("rectools")]
    path = keep / f"{name}-{hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:32]}.jsonl"
    if not path.exists():
        keep.mkdir(parents=True, exist_ok=True)
        write_answers(path, sequence_answers(name, clicks, readers, pool, places, settings, step))
    return list(read_answers(path).values())


def sequence_answers(
    name: str,
    clicks: pa.Table,
    readers: Sequence[str],
    pool: Sequence[str],
    places: int,
    settings: SequenceSettings,
    step: Step,
) -> list[Answer]:
    """At most `places` articles of `pool` for each of `readers`; none for readers without a click that is known.

    `clicks` has user_id, article_id and occurred_at, all before the moment.
    """
    found = set(clicks["article_id"].to_pylist()) & set(pool)
    users = sorted(set(clicks["user_id"].to_pylist()) & set(readers))
    if not found or not users:
        return [Answer(user_id=user) for user in readers]
    from offline.evaluate.sequence_models import fitted

    with warnings.catch_warnings():  # of RecTools' and lightning's own code
        warnings.simplefilter("ignore")
        dataset = _dataset(clicks)
        model = fitted(name, dataset, settings, step)
        rows = model.recommend(
            users=users, dataset=dataset, k=places, filter_viewed=True, items_to_recommend=sorted(found)
        )
    by_user: dict[str, list[str]] = {}
    for user, article in zip(rows["user_id"], rows["item_id"], strict=True):
        by_user.setdefault(user, []).append(article)
    return [Answer(user_id=user, ranked=tuple(by_user.get(user, ()))) for user in readers]


def _dataset(clicks: pa.Table) -> Any:
    from rectools.dataset import Dataset

    table = clicks.to_pandas().rename(columns={"article_id": "item_id"})
    table["datetime"] = table.pop("occurred_at").astype("datetime64[ms]")
    table["weight"] = 1.0
    return Dataset.construct(table)
