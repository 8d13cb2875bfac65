"""The cleaner as a sequence classifier of transformers: a small RoBERTa with a tokenizer of its own, or any checkpoint.

RoBERTa (Liu et al., 1907.11692) is what the paper names for cleaning; its size, data and training are not stated. Two
layers on a thousand subwords are enough for texts of a few words, and small enough to be shipped.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.training.bases import Base
from offline.training.labels import VERDICTS, Label
from offline.training.trainer_arguments import Shared, quiet_libraries, shared_arguments
from schemas.errors import UsageError

TINY = "tiny"  # a RoBERTa of random weights
LONGEST_TOKENS = 48  # of one text; titles are cut
BATCH_TEXTS = 256
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # in RoBERTa's order: pad is 1


class WordPieces:
    """Settings of the tokenizer: subwords few enough that unknown words fall into known parts."""

    VOCABULARY = 2_000
    LEAST_COUNT = 3


def train_tokenizer(texts: Iterable[str]) -> Any:
    """RoBERTa's byte-level BPE (any text has tokens) on these texts, without regard to case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WordPieces.VOCABULARY,
        min_frequency=WordPieces.LEAST_COUNT,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST_TOKENS,
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        **names,
    )


def new_classifier(texts: Iterable[str], *, seed: int) -> Base:
    """Random weights, 0.6 million, and a tokenizer of `texts`."""
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = train_tokenizer(texts)
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LONGEST_TOKENS + 2,  # RoBERTa counts positions from pad + 1
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **_labels(),
    )
    return Base(RobertaForSequenceClassification(config), tokenizer, TINY)


def load_classifier(source: str) -> Base:
    """The checkpoint in a folder or of a name, float32, with a head for two labels (a new one where it has none)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    quiet_libraries()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32, ignore_mismatched_sizes=True, **_labels()
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the classifier {source}: {error}") from error
    return Base(model, tokenizer, source)


def _labels() -> dict[str, Any]:
    return {
        "num_labels": len(VERDICTS),
        "id2label": dict(enumerate(VERDICTS)),
        "label2id": {name: place for place, name in enumerate(VERDICTS)},
    }


def classifier_trainer(base: Base, rows: Sequence[Label], settings: Any, staging: Path, device: str) -> Any:
    """transformers' Trainer; the loss weighs both labels alike, however rare one is."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    shared: Shared = settings
    arguments = TrainingArguments(
        **shared_arguments(shared, staging, device),
        per_device_train_batch_size=settings.batch,
        warmup_steps=max(1, settings.steps // 20),
        weight_decay=settings.weight_decay,
        label_names=["labels"],
    )
    return Trainer(
        base.model,
        args=arguments,
        train_dataset=_Dataset(base.tokenizer, rows),
        data_collator=DataCollatorWithPadding(base.tokenizer),
        compute_loss_func=balanced_loss(rows),
    )


def balanced_loss(rows: Sequence[Label]) -> Any:
    """Cross-entropy whose weights make up for the rows of each label: n / (2 n_label)."""
    import torch

    counts = [sum(row.label == verdict for row in rows) for verdict in VERDICTS]
    weights = torch.tensor([len(rows) / (2 * max(1, count)) for count in counts])

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        logits = outputs["logits"].float()
        return torch.nn.functional.cross_entropy(logits, labels, weight=weights.to(logits.device))

    return loss


class _Dataset:
    """Token ids with the place of the verdict; a sequence is all that torch's loader wants."""

    def __init__(self, tokenizer: Any, rows: Sequence[Label]) -> None:
        texts = [row.text for row in rows]
        self._ids = tokenizer(texts, truncation=True, max_length=LONGEST_TOKENS)["input_ids"] if texts else []
        self._labels = [VERDICTS.index(row.label) for row in rows]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> dict[str, Any]:
        ids = self._ids[place]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self._labels[place]}


def noise_probabilities(model: Any, tokenizer: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    """[n], of the label `drop`, in the order of `texts`; the model is left in the mode in which it was."""
    import torch

    was_training = model.training
    model.eval()
    found = np.empty(len(texts))
    with torch.inference_mode():
        for places in _batches(texts):
            inputs = tokenizer(
                [texts[place] for place in places],
                truncation=True,
                max_length=LONGEST_TOKENS,
                padding=True,
                return_tensors="pt",
                return_token_type_ids=False,
            )
            logits = model(**inputs.to(model.device)).logits.float()
            found[places] = logits.softmax(dim=1)[:, VERDICTS.index("drop")].cpu().numpy()
    model.train(was_training)
    return found


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts of like length, so that little is padding."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), BATCH_TEXTS):
        yield order[start : start + BATCH_TEXTS]


def set_threshold(model: Any, threshold: float) -> None:
    """Move the head's bias so that what had this probability of `drop` now has one half: the verdict is then the
    greater of the two, whoever serves the weights, and no number travels beside them."""
    import torch

    limit = min(max(threshold, 1e-6), 1 - 1e-6)
    with torch.no_grad():
        _head(model).bias[VERDICTS.index("drop")] -= float(np.log(limit / (1 - limit)))


def _head(model: Any) -> Any:
    """The last linear layer with one output for each verdict and a bias."""
    import torch

    found = [
        layer
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear) and layer.out_features == len(VERDICTS) and layer.bias is not None
    ]
    if not found:
        raise UsageError(f"{type(model).__name__} has no linear head with a bias: choose another base")
    return found[-1]
