"""Training the cleaner: labels in, a classifier of texts out, judged on held-out readers beside the rules alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.training.bases import Base, base_sha256
from offline.training.cleaner_scores import (
    BOTH,
    CLEANER,
    RULES,
    CleanerScore,
    Flags,
    best_threshold,
    dropped_by_rules,
    score_cleaners,
)
from offline.training.labels import Label, LabelSet, distinct
from offline.training.manifest import RunManifest, library_versions, source_commit
from offline.training.run import open_run
from offline.training.sequence_classifier import (
    TINY,
    classifier_trainer,
    load_classifier,
    new_classifier,
    noise_probabilities,
    set_threshold,
)
from offline.training.stage import Session, train_stage
from offline.training.unfamiliar import known_words, unfamiliar_texts, words_for
from schemas.config import Profiles

SCORES: Final = "scores.json"
JUDGED: Final = "judged.jsonl"
MOST_JUDGED: Final = 500  # held-out texts whose probabilities are kept, for the checks of a release

Probabilities = NDArray[np.float64]


class CleanerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The project's own: the paper states none. Chosen on validation readers."""

    steps: int = 250
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    checkpoint_every: int = 50
    measure_every: int = 50
    unfamiliar: float = 1.0  # texts of unknown words to be kept, for each distinct text of the labels
    unfamiliar_judged: int = 2_000  # such texts, of words that are in no trained one, that bound the threshold
    most_wrong: float = 0.01  # of what is to be kept and passes the rules, the share that may go (validation readers)
    languages: tuple[str, ...] = Profiles().languages  # of the rules
    seed: int = 7
    bf16: bool = False


def train_cleaner(
    folder: Path, labels: LabelSet, settings: CleanerSettings, session: Session, *, base: str = TINY
) -> RunManifest:
    """Train, choose the threshold, and write `scores.json`; repeating the call resumes, or returns what is done."""
    wanted = RunManifest(
        kind="cleaner",
        size=TINY if base == TINY else "",
        settings=msgspec.json.decode(msgspec.json.encode(settings)),  # as a later call reads it
        data_sha256=labels.sha256,
        base=base,
        base_sha256=base_sha256(base),
        commit=source_commit(),
        libraries=library_versions(),
        started_at=session.now_ms,
    )
    with open_run(folder, wanted, session.tell) as run:
        if run.finished:
            return run.manifest
        rows = distinct(labels.training)
        rows += unfamiliar_texts(
            words_for(known_words(), validation=False), int(settings.unfamiliar * len(rows)), seed=settings.seed
        )
        texts = [row.text for row in rows]
        loaded = new_classifier(texts, seed=settings.seed) if base == TINY else load_classifier(base)
        judge = _Judge(labels, loaded, settings, folder)
        return train_stage(
            run,
            loaded,
            lambda staging: classifier_trainer(loaded, rows, settings, staging, session.device),
            session,
            measure=judge.measure,
            measure_every=settings.measure_every,
            conclude=judge.conclude,
        )


class Judged(msgspec.Struct, frozen=True):
    """A text of a held-out reader with the probability of noise that the trained weights give."""

    text: str
    noise: float


class _Judge:
    """Validation during the run, the threshold at its end, and then the held-out readers, once."""

    def __init__(self, labels: LabelSet, base: Base, settings: CleanerSettings, folder: Path) -> None:
        self._labels, self._tokenizer, self._settings, self._folder = labels, base.tokenizer, settings, folder
        passed = ~dropped_by_rules(labels.validation, settings.languages)  # what it will be asked about
        self._validation = [row for row, asked in zip(labels.validation, passed, strict=True) if asked]
        words = words_for(known_words(), validation=True)
        self._unfamiliar = unfamiliar_texts(words, settings.unfamiliar_judged, seed=settings.seed)

    def measure(self, model: Any) -> dict[str, float]:
        """Share of the validation readers' noise that it finds with the threshold it would get now."""
        threshold, found = self._threshold(model)
        return {"validation_noise_found": float((found >= threshold).mean())} if found.size else {}

    def _threshold(self, model: Any) -> tuple[float, Probabilities]:
        """At most the allowed share is dropped of what validation readers keep, and of what is like no label. Beside it
        the probabilities of the validation readers' noise."""
        rows = [*self._validation, *self._unfamiliar]
        noise, wanted = self._noise(model, rows), _wanted(rows)
        labelled = np.arange(len(rows)) < len(self._validation)
        groups = [group for group in (labelled, wanted | ~labelled) if group.any()]
        limits = [best_threshold(noise[group], wanted[group], self._settings.most_wrong) for group in groups]
        return max(limits), noise[wanted]

    def conclude(self, model: Any) -> dict[str, float]:
        """Set the model's threshold and score it; the scores for the manifest."""
        threshold, _ = self._threshold(model)
        set_threshold(model, threshold)
        scores = self.held_out(model)
        write_whole(self._folder / SCORES, msgspec.json.format(msgspec.json.encode(scores), indent=2) + b"\n")
        return {"threshold": threshold} | _flat(scores)

    def held_out(self, model: Any) -> list[CleanerScore]:
        rows, settings = self._labels.held_out, self._settings
        noise, rules = self._noise(model, rows), dropped_by_rules(rows, settings.languages)
        kept = [Judged(row.text, float(share)) for row, share in zip(rows[:MOST_JUDGED], noise, strict=False)]
        write_whole(self._folder / JUDGED, b"".join(msgspec.json.encode(row) + b"\n" for row in kept))
        cleaner = noise >= 0.5
        systems = {RULES: rules, CLEANER: cleaner, BOTH: rules | cleaner}
        return score_cleaners(rows, systems, {row.text for row in self._labels.training}, seed=settings.seed)

    def _noise(self, model: Any, rows: Sequence[Label]) -> Probabilities:
        """Each distinct text is judged once: readers' texts repeat."""
        texts, place = np.unique([row.text for row in rows], return_inverse=True)
        return noise_probabilities(model, self._tokenizer, texts.tolist())[place]


def _wanted(rows: Sequence[Label]) -> Flags:
    return np.array([row.dropped for row in rows], dtype=np.bool_)


def write_whole(place: Path, data: bytes) -> None:
    part = place.with_name(f".{place.name}.part")
    part.write_bytes(data)
    part.replace(place)


def read_scores(folder: Path) -> list[CleanerScore]:
    return msgspec.json.decode((folder / SCORES).read_bytes(), type=list[CleanerScore])


def read_judged(folder: Path) -> list[Judged]:
    return [msgspec.json.decode(line, type=Judged) for line in (folder / JUDGED).read_bytes().splitlines()]


def _flat(scores: Sequence[CleanerScore]) -> dict[str, float]:
    """`rules + cleaner, unseen: recall` and the like."""
    found = {}
    for row in scores:
        for name, share in (("precision", row.precision), ("recall", row.recall)):
            if share.value is not None:
                found[f"{row.system}, {row.texts}: {name}"] = share.value
    return found
