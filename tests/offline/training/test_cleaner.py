"""The cleaner on a few hundred texts: it learns, its threshold is in its weights, and a killed run resumes."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from offline.training.bases import Base
from offline.training.cleaner import CleanerSettings, read_judged, read_scores, train_cleaner
from offline.training.cleaner_scores import BOTH, CLEANER, RULES
from offline.training.labels import Label, LabelSet, load_labels
from offline.training.manifest import RunManifest
from offline.training.progress import Progress
from offline.training.run import weights_of
from offline.training.sequence_classifier import (
    LONGEST_TOKENS,
    balanced_loss,
    load_classifier,
    new_classifier,
    noise_probabilities,
    set_threshold,
)
from offline.training.stage import Session
from schemas.errors import UsageError
from tests.offline.training.cleaner_labels import write_labels

ROOT = Path(__file__).parents[3]
SETTINGS = CleanerSettings(
    steps=60, batch=16, learning_rate=3e-3, checkpoint_every=30, measure_every=0, unfamiliar_judged=200
)
SHORT = msgspec.structs.replace(SETTINGS, steps=6, checkpoint_every=2, measure_every=0)
PROGRAM = """
import os, signal, sys
from pathlib import Path
from offline.training.cleaner import train_cleaner
from offline.training.labels import load_labels
from offline.training.stage import Session
from tests.offline.training.test_cleaner import SHORT
def watch(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
session = Session(device="cpu", watch=watch, tell=lambda sentence: None, now_ms=1)
train_cleaner(Path(sys.argv[2]), load_labels([Path(sys.argv[1])]), SHORT, session)
"""


@pytest.fixture(scope="module")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.jsonl")


@pytest.fixture(scope="module")
def labels(label_file: Path) -> LabelSet:
    return load_labels([label_file])


@pytest.fixture(scope="module")
def run(labels: LabelSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunManifest]:
    folder = tmp_path_factory.mktemp("run")
    session = Session(device="cpu", watch=lambda step: None, tell=lambda sentence: None, now_ms=1)
    return folder, train_cleaner(folder, labels, SETTINGS, session)


def judged(model: Base, texts: list[str]) -> list[bool]:
    found = noise_probabilities(model.model, model.tokenizer, texts) >= 0.5
    return [bool(flag) for flag in found]


def test_it_tells_noise_of_held_out_readers_that_the_rules_let_pass(run: tuple[Path, RunManifest]) -> None:
    folder, manifest = run
    scores = {row.system: row for row in read_scores(folder) if row.texts == "unseen"}
    alone, both = scores[RULES].recall.value, scores[BOTH].recall.value
    assert alone is not None
    assert both is not None
    assert alone < 0.5
    assert both > alone + 0.3
    assert scores[BOTH].wrongly_dropped <= 0.05
    assert manifest.scores[f"{CLEANER}, unseen: recall"] == scores[CLEANER].recall.value
    assert (manifest.kind, manifest.state, manifest.steps) == ("cleaner", "done", 60)


def test_the_saved_weights_give_the_verdicts_that_were_scored(run: tuple[Path, RunManifest], labels: LabelSet) -> None:
    folder, _ = run
    loaded, kept = load_classifier(str(folder / "model")), read_judged(folder)
    assert [row.text for row in kept] == [row.text for row in labels.held_out[: len(kept)]]
    found = noise_probabilities(loaded.model, loaded.tokenizer, [row.text for row in kept])
    np.testing.assert_allclose(found, [row.noise for row in kept], atol=1e-4)


def test_any_checkpoint_may_be_the_base(
    run: tuple[Path, RunManifest], labels: LabelSet, session: Session, tmp_path: Path
) -> None:
    folder, _ = run
    base = str(folder / "model")
    again = train_cleaner(tmp_path, labels, msgspec.structs.replace(SHORT, steps=1), session, base=base)
    assert (again.base, len(again.base_sha256)) == (base, 64)
    with pytest.raises(UsageError, match="cannot load the classifier"):
        load_classifier(str(tmp_path / "nothing"))


@pytest.mark.fault
def test_a_killed_run_resumes_and_makes_the_same_model(
    labels: LabelSet, label_file: Path, session: Session, told: list[str], seen: list[Progress], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(label_file), str(tmp_path / "killed")]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGKILL
    train_cleaner(tmp_path / "killed", labels, SHORT, session)
    assert "resuming from checkpoint-2" in told
    assert seen[0].step == 3
    train_cleaner(tmp_path / "whole", labels, SHORT, session)
    weights = [weights_of(tmp_path / name / "model").read_bytes() for name in ("killed", "whole")]
    assert weights[0] == weights[1]


def test_other_labels_are_another_run(run: tuple[Path, RunManifest], labels: LabelSet, session: Session) -> None:
    other = msgspec.structs.replace(labels, sha256="other")
    with pytest.raises(UsageError, match="another run"):
        train_cleaner(run[0], other, SETTINGS, session)


@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.97])
def test_the_threshold_moves_into_the_weights(run: tuple[Path, RunManifest], threshold: float) -> None:
    loaded = load_classifier(str(run[0] / "model"))
    texts = ["facebook login", "brisket rub", "weather boston", "invoice 77"]
    before = noise_probabilities(loaded.model, loaded.tokenizer, texts)
    set_threshold(loaded.model, threshold)
    assert judged(loaded, texts) == [bool(share >= threshold) for share in before]


def test_both_labels_weigh_alike_however_rare_one_is() -> None:
    import torch

    rows = [Label("a", "drop")] + [Label("b", "keep")] * 3
    loss, labels = balanced_loss(rows), torch.tensor([0, 0, 0, 1])
    right_for_keep = {"logits": torch.tensor([[4.0, 0.0]] * 4)}
    right_for_drop = {"logits": torch.tensor([[0.0, 4.0]] * 4)}
    assert float(loss(right_for_keep, labels)) == pytest.approx(float(loss(right_for_drop, labels)))


def test_any_text_has_tokens_and_case_means_nothing() -> None:
    made = new_classifier(["brisket rub", "facebook login"] * 5, seed=1)
    ids = made.tokenizer(["Brisket RUB", "brisket rub", "漢字 😀", ""])["input_ids"]
    assert ids[0] == ids[1]
    assert made.tokenizer.unk_token_id not in {token for row in ids for token in row}
    assert len(noise_probabilities(made.model, made.tokenizer, ["word " * 5_000, ""])) == 2  # longer than its positions
    assert made.model.config.max_position_embeddings == LONGEST_TOKENS + 2
