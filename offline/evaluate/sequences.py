"""Sequence models of clicks, trained here: SASRec, and GRU4Rec as SASRec's training around a GRU.

Both are RecTools' (one data preparation, one loss: softmax over all articles), so that only the layers differ. RecTools
0.19 has no GRU4Rec; Hidasi & Karatzoglou (CIKM 2018) show that loss and sampling matter more than the cell.

They learn from everybody's clicks before the moment, as such models do in production, and answer each reader from that
reader's own. An article that nobody had clicked by then is unknown to them: that is what a sequence of ids is, and part
of the comparison.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from offline.evaluate.answers import Answer, read_answers, write_answers

NAMES = ("SASRec", "GRU4Rec")


class SequenceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """RecTools' defaults, but smaller: a news log has few clicks for each reader."""

    factors: int = 64
    blocks: int = 2
    heads: int = 2
    epochs: int = 20
    longest: int = 50
    seed: int = 7


def kept_sequence_answers(
    name: str,
    clicks: pa.Table,
    readers: Sequence[str],
    pool: Sequence[str],
    places: int,
    settings: SequenceSettings,
    keep: Path | None,
) -> list[Answer]:
    """`sequence_answers`, read from the folder `keep` where the same training answered before: it takes minutes."""
    if keep is None:
        return sequence_answers(name, clicks, readers, pool, places, settings)
    made_of = [name, clicks.to_pylist(), readers, pool, places, settings, version("rectools")]
    path = keep / f"{name}-{hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()[:32]}.jsonl"
    if not path.exists():
        keep.mkdir(parents=True, exist_ok=True)
        write_answers(path, sequence_answers(name, clicks, readers, pool, places, settings))
    return list(read_answers(path).values())


def sequence_answers(
    name: str,
    clicks: pa.Table,
    readers: Sequence[str],
    pool: Sequence[str],
    places: int,
    settings: SequenceSettings,
) -> list[Answer]:
    """At most `places` articles of `pool` for each of `readers`; none for readers without a click that is known.

    `clicks` has user_id, article_id and occurred_at, all before the moment.
    """
    found = set(clicks["article_id"].to_pylist()) & set(pool)
    users = sorted(set(clicks["user_id"].to_pylist()) & set(readers))
    if not found or not users:
        return [Answer(user_id=user) for user in readers]
    with warnings.catch_warnings():  # of RecTools' and lightning's own code
        warnings.simplefilter("ignore")
        dataset = _dataset(clicks)
        model = _fitted(name, dataset, settings)
        rows = model.recommend(
            users=users, dataset=dataset, k=places, filter_viewed=True, items_to_recommend=sorted(found)
        )
    by_user: dict[str, list[str]] = {}
    for user, article in zip(rows["user_id"], rows["item_id"], strict=True):
        by_user.setdefault(user, []).append(article)
    return [Answer(user_id=user, ranked=tuple(by_user.get(user, ()))) for user in readers]


def _fitted(name: str, dataset: Any, settings: SequenceSettings) -> Any:
    from pytorch_lightning import seed_everything
    from rectools.models import SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    seed_everything(settings.seed, verbose=False)
    layers = {"transformer_layers_type": _gru_layers(), "use_pos_emb": False} if name == "GRU4Rec" else {}
    model = SASRecModel(
        n_blocks=settings.blocks,
        n_heads=settings.heads,
        n_factors=settings.factors,
        session_max_len=settings.longest,
        epochs=settings.epochs,
        deterministic=True,
        item_net_block_types=(IdEmbeddingsItemNet,),
        recommend_torch_device="cpu",
        get_trainer_func=_trainer,
        get_trainer_func_kwargs={"epochs": settings.epochs},
        **layers,
    )
    return model.fit(dataset)


def _dataset(clicks: pa.Table) -> Any:
    from rectools.dataset import Dataset

    table = clicks.to_pandas().rename(columns={"article_id": "item_id"})
    table["datetime"] = table.pop("occurred_at").astype("datetime64[ms]")
    table["weight"] = 1.0
    return Dataset.construct(table)


def _trainer(epochs: int) -> Any:
    """Quiet, and without the folders that lightning leaves behind."""
    from pytorch_lightning import Trainer

    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _gru_layers() -> Any:
    import torch
    from rectools.models.nn.transformers.net_blocks import TransformerLayersBase

    class GruLayers(TransformerLayersBase):  # type: ignore[misc]  # RecTools is untyped here
        """Hidden states of a GRU over the sequence, in the place of transformer blocks."""

        def __init__(self, n_blocks: int, n_factors: int, n_heads: int, dropout_rate: float, **_: Any) -> None:
            super().__init__()
            inner = dropout_rate if n_blocks > 1 else 0.0
            self.gru = torch.nn.GRU(n_factors, n_factors, n_blocks, batch_first=True, dropout=inner)

        def forward(self, seqs: torch.Tensor, timeline_mask: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            hidden: torch.Tensor = self.gru(seqs * timeline_mask)[0]
            return hidden * timeline_mask

    return GruLayers
