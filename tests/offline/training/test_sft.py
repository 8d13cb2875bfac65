from pathlib import Path

import pytest
import torch

from offline.training.bases import load_base
from offline.training.sft import sft_trainer
from offline.training.sizes import TINY

PROMPTS = [
    "News searches:",
    "Searches: lithium mine; coast storm\nNews searches:",
    "Pages: rail strike\nNews searches:",
]
LISTS = [" lithium mine", " coast storm; lithium mine; rail strike", " rail strike"]


@pytest.mark.parametrize("counted", [True, False])
def test_the_loss_is_that_of_trl(tmp_path: Path, base: str, counted: bool) -> None:
    """Which projects every token to the vocabulary and drops the prompt's afterwards."""
    trainer = sft_trainer(load_base(base), PROMPTS, LISTS, TINY.warm_start, tmp_path / "run", "cpu")
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"] != -100).sum() if counted else None
    with torch.no_grad():
        ours = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        trls = super(type(trainer), trainer).compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
    assert ours > 1.0
    assert float(ours) == pytest.approx(float(trls), rel=1e-5)
