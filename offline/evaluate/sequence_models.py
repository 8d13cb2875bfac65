"""SASRec, and GRU4Rec as SASRec's training around a GRU: RecTools' networks and data, and a training step of ours.

RecTools scores every place of a padded session against all articles; readers of news have few clicks, so most places
are padding, whose loss it then drops. Here only places with a label are scored: the same loss, a quarter of the time.
"""

import logging
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.net_blocks import TransformerLayersBase
from rectools.models.nn.transformers.utils import leave_one_out_mask

from offline.evaluate.policies import Step
from offline.evaluate.sequence_settings import SequenceSettings

WATCHED = "val_loss"  # mean cross-entropy of the last click of readers whose last click is held apart


class LabelledPlaces(TransformerLightningModule):  # type: ignore[misc]  # RecTools is untyped here
    """Softmax over all articles at the places of a session that have a label."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        articles = self.torch_model.item_model.get_all_embeddings()
        labelled = batch["y"] != 0
        hidden = self.torch_model.encode_sessions(batch, articles)[labelled]
        logits = self.torch_model.similarity_module(hidden, articles)
        return torch.nn.functional.cross_entropy(logits, batch["y"][labelled])


class GruLayers(TransformerLayersBase):  # type: ignore[misc]  # RecTools is untyped here
    """Hidden states of a GRU over the sequence, in the place of transformer blocks."""

    def __init__(self, n_blocks: int, n_factors: int, n_heads: int, dropout_rate: float, **_: Any) -> None:
        super().__init__()
        inner = dropout_rate if n_blocks > 1 else 0.0
        self.norm = torch.nn.LayerNorm(n_factors)  # as in SASRec's blocks: vectors of articles begin near 0
        self.gru = torch.nn.GRU(n_factors, n_factors, n_blocks, batch_first=True, dropout=inner)

    def forward(self, seqs: torch.Tensor, timeline_mask: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        hidden: torch.Tensor = self.gru(self.norm(seqs) * timeline_mask)[0]
        return hidden * timeline_mask


LAYERS: dict[str, dict[str, Any]] = {
    "SASRec": {},
    "GRU4Rec": {"transformer_layers_type": GruLayers, "use_pos_emb": False},
}


def fitted(name: str, dataset: Dataset, settings: SequenceSettings, step: Step) -> SASRecModel:
    """The model of the epoch which predicted best what readers clicked last; `step` hears how far it is."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    seed_everything(settings.seed, verbose=False)
    with TemporaryDirectory(prefix="keenstream-sequences-") as folder:
        best = ModelCheckpoint(folder, monitor=WATCHED, save_weights_only=True)
        model = SASRecModel(
            n_blocks=settings.blocks,
            n_heads=settings.heads,
            n_factors=settings.factors,
            session_max_len=settings.longest,
            epochs=settings.epochs,
            deterministic=True,
            item_net_block_types=(IdEmbeddingsItemNet,),
            lightning_module_type=LabelledPlaces,
            recommend_torch_device="cpu",
            get_val_mask_func=leave_one_out_mask,
            get_val_mask_func_kwargs={"val_users": settings.apart_of(dataset.user_id_map.size)},
            get_trainer_func=lambda: _trainer(name, settings, best, step),
            **LAYERS[name],
        )
        model.fit(dataset)
        if best.best_model_path:
            model.load_weights_from_checkpoint(best.best_model_path)
    return model


def _trainer(name: str, settings: SequenceSettings, best: ModelCheckpoint, step: Step) -> Trainer:
    """Quiet, and without the folders that lightning leaves behind."""

    def tell(trainer: Trainer, *_: Any) -> None:
        done = trainer.fit_loop.batch_idx / trainer.num_training_batches
        epoch = f"epoch {trainer.current_epoch + 1} of at most {settings.epochs}"
        step(f"{name}, seed {settings.seed}: {epoch}, {done:.0%}")

    return Trainer(
        max_epochs=settings.epochs,
        accelerator="cpu",
        deterministic=True,
        logger=False,
        callbacks=[
            best,
            EarlyStopping(WATCHED, patience=settings.patience, strict=False),
            LambdaCallback(on_train_batch_start=tell),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
