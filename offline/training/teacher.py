"""The teacher: a supervised warm start on chosen lists, then Dr. GRPO with the rewards.

Two runs, one inside the other: `FOLDER/warm-start` and `FOLDER`. Either is resumed by repeating the same call.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from offline.training.bases import base_sha256, load_base
from offline.training.expected_hit import ExpectedHit
from offline.training.greedy import ListWriter
from offline.training.grpo import grpo_trainer
from offline.training.manifest import Kind, RunManifest, library_versions, source_commit
from offline.training.material import (
    SIGNALS,
    Material,
    columns_of,
    composite_of,
    held_out_measure,
    prompts_of,
    signals_recall,
)
from offline.training.proposals import TrainingReader
from offline.training.rewards import EXPECTED_HIT, SHARE_ABSTAINED, weighted
from offline.training.run import Tell, open_run
from offline.training.sft import sft_trainer
from offline.training.sizes import Size, Teacher, WarmStart
from offline.training.stage import Session, train_stage
from offline.training.vocabulary import tokenizer_sha256
from offline.training.warm_start import Chosen, choose_lists
from schemas.errors import UsageError
from schemas.prompt import BARE

WARM_START = "warm-start"
LISTS = "lists.jsonl"


def begin_manifest(
    kind: Kind,
    size: str,
    settings: msgspec.Struct,
    material: Material,
    base: str,
    session: Session,
    *,
    teacher: str = "",
    method: str = "",
) -> RunManifest:
    """The manifest of a new run on this code and these libraries."""
    return RunManifest(
        kind=kind,
        size=size,
        teacher=teacher,
        method=method,
        judge=material.judge if kind != "student" and not teacher else "",  # a student is taught by no reward
        settings=msgspec.to_builtins(settings),
        data_sha256=material.data_sha256,
        base=base,
        base_sha256=base_sha256(base),
        prompt_version=BARE,
        commit=source_commit(),
        libraries=library_versions(),
        started_at=session.now_ms,
        tokenizer_sha256=tokenizer_sha256(Path(base)) if Path(base).is_dir() else "",
    )


def train_warm_start(
    folder: Path, material: Material, size: str, settings: WarmStart, base: str, session: Session
) -> RunManifest:
    """Fine-tune `base` on the best proposals for the training readers; the lists are kept in the run's folder."""

    wanted = begin_manifest("warm-start", size, settings, material, base, session)
    return fine_tune(
        folder, wanted, lambda: _chosen(material, settings, base, session.tell), material, settings, session
    )


def fine_tune(
    folder: Path,
    wanted: RunManifest,
    make_lists: Callable[[], Sequence[Chosen]],
    material: Material,
    settings: WarmStart,
    session: Session,
) -> RunManifest:
    """A supervised run from `wanted.base` on lists that are made once, when the run begins."""
    with open_run(folder, wanted, session.tell) as run:
        if run.finished:
            return run.manifest
        rows, loaded = kept_lists(folder, make_lists), load_base(wanted.base)
        scores = {"lists": float(len(rows))} | _recalls(rows)
        scores[SIGNALS] = signals_recall(material)
        prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
        return train_stage(
            run,
            loaded,
            lambda staging: sft_trainer(loaded, prompts, completions, settings, staging, session.device),
            session,
            measure=held_out_measure(material, loaded.tokenizer, settings.max_new_tokens),
            measure_every=settings.steps,  # before the first step and after the last
            scores=scores,
        )


def _recalls(rows: Sequence[Chosen]) -> dict[str, float]:
    """Of the chosen lists and of the signals, by news that chose nothing; none where nobody clicked such news."""
    judged = [row for row in rows if row.recall is not None]
    if not judged:
        return {}
    return {
        "lists_recall_at_10": fmean(row.recall or 0.0 for row in judged),
        "lists_signals_recall_at_10": fmean(row.signals_recall or 0.0 for row in judged),
    }


def kept_lists(folder: Path, make: Callable[[], Sequence[Chosen]]) -> list[Chosen]:
    """The lists of a run: read where they are, made and kept where not, whole or not at all."""
    place = folder / LISTS
    if not place.exists():
        part = folder / f".{LISTS}.part"
        part.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in make()))
        part.replace(place)
    try:
        return [msgspec.json.decode(line, type=Chosen) for line in place.read_bytes().splitlines()]
    except msgspec.MsgspecError as error:
        raise UsageError(f"{place} is cut short or damaged ({error}): delete it, and the run makes it anew") from error


def _chosen(material: Material, settings: WarmStart, base: str, tell: Tell) -> list[Chosen]:
    told = material.training[: settings.readers]
    texts = _samples(told, settings, base, tell) if settings.choice.samples else None
    tell(f"choosing the best list of each of {len(told)} readers by the clicks of {len(material.training)}")
    parts: dict[str, float] = {}
    score = composite_of(material.rewards, {}, parts.__setitem__)
    lists = choose_lists(material.training, material.news, score, settings.choice, texts, most=len(told), tell=tell)
    for name, share in parts.items():
        if share and name.endswith(SHARE_ABSTAINED):
            tell(f"{name.removesuffix(SHARE_ABSTAINED)} abstained for {share:.0%} of the lists, which counts as 0")
    return lists


def _samples(readers: Sequence[TrainingReader], settings: WarmStart, base: str, tell: Tell) -> list[list[str]]:
    choice, loaded = settings.choice, load_base(base)
    tell(f"sampling lists of the model for {len(readers)} readers, {choice.samples} each")
    writer = ListWriter(loaded.model, loaded.tokenizer, max_new_tokens=settings.max_new_tokens)
    prompts = prompts_of(readers)
    return writer.sample(prompts, choice.samples, temperature=choice.sample_temperature, seed=settings.seed)


def train_teacher(
    folder: Path, material: Material, size: Size, base: str, session: Session, *, warm_start: bool = True
) -> RunManifest:
    """Both stages; `warm_start=False` goes on from `base` as it is, for a large model that prompting already serves."""
    weighted(material.rewards, size.teacher.reward_weights)  # a misspelt name is told before hours of warm start
    start = base
    if warm_start:
        train_warm_start(folder / WARM_START, material, size.name, size.warm_start, base, session)
        start = str(folder / WARM_START / "model")
    settings: Teacher = size.teacher
    with open_run(
        folder, begin_manifest("teacher", size.name, settings, material, start, session), session.tell
    ) as run:
        if run.finished:
            return run.manifest
        loaded, told = load_base(start), material.training[: settings.readers]
        expected = material.rewards.get(EXPECTED_HIT)
        if isinstance(expected, ExpectedHit) and settings.reward_weights.get(EXPECTED_HIT, 1.0):
            expected.learn(material.training, len(told), session.tell)
        return train_stage(
            run,
            loaded,
            lambda staging: grpo_trainer(loaded, columns_of(told), material.rewards, settings, staging, session.device),
            session,
            gates=settings.gates,
            measure=held_out_measure(material, loaded.tokenizer, settings.max_new_tokens),
            measure_every=settings.held_out_every,
            scores={SIGNALS: signals_recall(material)},
        )
