"""The student: a shallower or smaller model that learns to write what the teacher writes.

Three runs at most, one inside the other: `FOLDER/pruned` (the blocks that were kept, and why), `FOLDER/warm-start`
(supervised, on the teacher's own lists), `FOLDER` (on-policy, reverse KL). The methods are the paper's comparison:
`on-policy` is all of it, `supervised` stops after the lists (with as many steps as both stages have together), `none`
takes the student as it is.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from offline.evaluate.prompt_writers import Checkpoint, Engine, prompt_writer
from offline.release.folders import build_folder
from offline.training.bases import Base, load_base, save_model
from offline.training.distillation import distillation_trainer
from offline.training.manifest import RunManifest
from offline.training.material import SIGNALS, Material, held_out_measure, prompts_of, signals_recall
from offline.training.pruning import block_influence, kept_blocks, prune_blocks
from offline.training.run import MODEL, open_run
from offline.training.sizes import Size, WarmStart
from offline.training.stage import Session, train_stage
from offline.training.teacher import WARM_START, begin_manifest, fine_tune
from offline.training.vocabulary import check_same_vocabulary
from offline.training.warm_start import Chosen, completion_of
from schemas.errors import UsageError
from schemas.prompt import BARE
from schemas.queries import parse_queries

Method = Literal["on-policy", "supervised", "none"]
METHODS: tuple[Method, ...] = ("on-policy", "supervised", "none")

PRUNED, INFLUENCE = "pruned", "block_influence.json"
MEASURED_PROMPTS = 64  # for block influence


class Influence(msgspec.Struct, frozen=True):
    """Which blocks a pruned student has, and what decided."""

    values: list[float]  # 1 - mean cosine between what enters and what leaves, for each block of the source
    kept: list[int]


def train_student(
    folder: Path,
    material: Material,
    size: Size,
    teacher: Path,
    session: Session,
    *,
    base: str | None = None,
    method: Method = "on-policy",
) -> RunManifest:
    """Train `base`, or the teacher pruned to `size.student.layers` blocks where none is given."""
    if method not in METHODS:
        raise UsageError(f"--method is one of {', '.join(METHODS)}, not {method!r}")
    start = base or str(ensure_pruned(folder / PRUNED, str(teacher), size.student.layers, material))
    check_same_vocabulary(Path(start), teacher)
    if method == "none":
        return _as_it_is(folder, material, size, start, teacher, session)
    if method == "supervised":
        return _supervised(folder, material, size, start, teacher, session)
    warm = size.student.warm_start
    wanted = begin_manifest("warm-start", size.name, warm, material, start, session, teacher=str(teacher))
    write = partial(teacher_lists, material, teacher, warm, size.student.engine)
    fine_tune(folder / WARM_START, wanted, write, material, warm, session)
    return distil(folder, material, size, str(folder / WARM_START / MODEL), teacher, session)


def ensure_pruned(folder: Path, model: str, layers: int, material: Material) -> Path:
    """A model with its most influential blocks, measured on training prompts; made once."""
    if not folder.exists():
        loaded = load_base(model)
        prompts = prompts_of(material.training[:MEASURED_PROMPTS])
        values = block_influence(loaded.model, loaded.tokenizer, prompts)
        kept = kept_blocks(values, layers)
        small = loaded._replace(model=prune_blocks(loaded.model, kept))

        def fill(target: Path) -> None:
            save_model(small, target)
            (target / INFLUENCE).write_bytes(msgspec.json.encode(Influence(values, kept)))

        build_folder(folder, fill)
    return folder


def teacher_lists(material: Material, teacher: Path, settings: WarmStart, engine: Engine) -> list[Chosen]:
    """What the teacher writes, greedy, as the parser reads it, for as many training readers as the steps will see."""
    readers = material.training[: settings.readers]
    prompts = prompts_of(readers)
    made_by = Checkpoint(folder=str(teacher), prompt=BARE, engine=engine, max_new_tokens=settings.max_new_tokens)
    with prompt_writer(made_by) as write:
        texts = [text for (text,) in write(prompts, 1, 0)]
    rows = zip(readers, prompts, map(parse_queries, texts), strict=True)
    found = [
        Chosen(user_id=reader.user_id, prompt=prompt, completion=completion_of(queries), source="teacher")
        for reader, prompt, queries in rows
        if queries
    ]
    if not found:
        raise UsageError(f"the teacher {teacher} wrote no usable list for any training reader: train it further")
    return found


def _supervised(
    folder: Path, material: Material, size: Size, start: str, teacher: Path, session: Session
) -> RunManifest:
    """The comparison's middle row: the teacher's lists for as many steps as both stages have together."""
    warm = size.student.warm_start
    settings = msgspec.structs.replace(warm, steps=warm.steps + size.student.steps)
    names = {"teacher": str(teacher), "method": "supervised"}
    wanted = begin_manifest("student", size.name, settings, material, start, session, **names)
    write = partial(teacher_lists, material, teacher, settings, size.student.engine)
    return fine_tune(folder, wanted, write, material, settings, session)


def distil(folder: Path, material: Material, size: Size, start: str, teacher: Path, session: Session) -> RunManifest:
    """The last run alone: on-policy from the model `start`."""
    settings, names = size.student, {"teacher": str(teacher), "method": "on-policy"}
    wanted = begin_manifest("student", size.name, settings, material, start, session, **names)
    with open_run(folder, wanted, session.tell) as run:
        if run.finished:
            return run.manifest
        student, master = load_base(start), load_base(str(teacher))
        return train_stage(
            run,
            student,
            lambda staging: distillation_trainer(
                student, master, prompts_of(material.training), settings, staging, session.device
            ),
            session,
            gates=settings.gates,
            measure=held_out_measure(material, student.tokenizer, settings.max_new_tokens),
            measure_every=settings.held_out_every,
            scores=_teacher_scores(material, master, settings.max_new_tokens),
        )


def _teacher_scores(material: Material, teacher: Base, max_new_tokens: int) -> dict[str, float]:
    recall = held_out_measure(material, teacher.tokenizer, max_new_tokens)(teacher.model)
    return {f"teacher_{name}": value for name, value in recall.items()} | {SIGNALS: signals_recall(material)}


def _as_it_is(folder: Path, material: Material, size: Size, start: str, teacher: Path, session: Session) -> RunManifest:
    """The comparison's last row: nothing is trained."""
    names = {"teacher": str(teacher), "method": "none"}
    wanted = begin_manifest("student", size.name, size.student, material, start, session, **names)
    with open_run(folder, wanted, session.tell) as run:
        if run.finished:
            return run.manifest
        loaded = load_base(start)
        scores = held_out_measure(material, loaded.tokenizer, size.student.max_new_tokens)(loaded.model)
        return run.finish(lambda target: save_model(loaded, target), steps=0, reason="", scores=dict(scores))
