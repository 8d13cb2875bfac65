from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from rectools.dataset import Dataset

from offline.evaluate.sequence_models import fitted
from offline.evaluate.sequence_settings import NAMES, SequenceSettings

SETTINGS = SequenceSettings(factors=16, blocks=1, heads=1, epochs=2, longest=8)


def clicks_by_chance(seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    rows = [(user, f"a{rng.integers(30)}", moment) for user in range(200) for moment in range(rng.integers(2, 9))]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "datetime"])
    return Dataset.construct(table.assign(datetime=pd.to_datetime(table["datetime"], unit="s"), weight=1.0))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_rectools_which_scores_padding_too(name: str) -> None:
    model: Any = fitted(name, clicks_by_chance(), SETTINGS, print)
    module = model.lightning_model.eval()
    batch = next(iter(model.data_preparator.get_dataloader_train()))
    assert (batch["x"] == 0).any()
    with torch.no_grad():
        ours = module.training_step(batch, 0)
        theirs = module.loss_calculator(module.get_batch_logits(batch), batch["y"], batch["yw"])
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_it_ends_when_the_last_clicks_are_predicted_no_better() -> None:
    told: list[str] = []
    fitted("SASRec", clicks_by_chance(), msgspec.structs.replace(SETTINGS, epochs=500), told.append)
    assert 1 < len({line.partition(" of ")[0] for line in told}) < 500
