"""The student's stage with real trainers on the test world: methods, pruning, adapters, refusals, and what is kept."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch

from offline.evaluate.prompt_writers import Engine
from offline.training.bases import ADAPTER, load_base, save_model
from offline.training.curves import Curves
from offline.training.gates import HELD_OUT, GateSettings
from offline.training.job import TrainingJob, run_on, sized
from offline.training.manifest import read_run_manifest
from offline.training.material import Material, prompts_of
from offline.training.progress import Progress
from offline.training.pruning import block_influence, blocks_of
from offline.training.run import weights_of
from offline.training.sizes import WarmStart
from offline.training.stage import Session
from offline.training.student import INFLUENCE, PRUNED, Influence, Method, teacher_lists, train_student
from offline.training.teacher import WARM_START, train_teacher
from schemas.errors import UsageError
from schemas.queries import parse_queries
from tests.offline.training.runs import STUDENT_SIZE, TEACHER, run_student

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def teacher(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random base itself: what it writes is noise that parses, which is enough to be learnt from."""
    return Path(shutil.copytree(base, tmp_path_factory.mktemp("teacher") / "model"))


@pytest.fixture(scope="module")
def on_policy(teacher: Path, material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    quiet = Session(device="cpu", watch=lambda step: None, tell=lambda sentence: None, now_ms=1)
    run_student(folder, material, teacher, quiet)
    return folder


def test_a_student_is_the_teacher_without_the_blocks_that_change_least(
    on_policy: Path, teacher: Path, material: Material
) -> None:
    loaded = load_base(str(teacher))
    found = msgspec.json.decode((on_policy / PRUNED / INFLUENCE).read_bytes(), type=Influence)
    assert found.values == pytest.approx(block_influence(loaded.model, loaded.tokenizer, prompts_of(material.training)))
    least = sorted(range(4), key=lambda block: found.values[block])[:2]
    assert found.kept == sorted(set(range(4)) - set(least))
    pruned = load_base(str(on_policy / PRUNED)).model
    for place, block in enumerate(found.kept):
        for name, weight in pruned.model.layers[place].named_parameters():
            torch.testing.assert_close(weight, loaded.model.model.layers[block].get_parameter(name))
    assert load_base(str(on_policy / "model")).model.config.num_hidden_layers == 2


def test_on_policy_is_a_warm_start_on_the_teachers_lists_and_then_reverse_kl(on_policy: Path) -> None:
    manifest, warm = read_run_manifest(on_policy), read_run_manifest(on_policy / WARM_START)
    assert manifest is not None and warm is not None
    assert (manifest.method, manifest.state, manifest.steps) == ("on-policy", "done", 2)
    assert (warm.kind, warm.steps) == ("warm-start", STUDENT_SIZE.student.warm_start.steps)
    assert manifest.base == str(on_policy / WARM_START / "model")
    assert {"teacher_held_out", "held_out", "signals_recall_at_10"} <= manifest.scores.keys()
    losses = [row["loss"] for row in Curves(on_policy).rows if "loss" in row]
    assert len(losses) == 2 and min(losses) > 0  # a divergence of two different models
    assert not (on_policy / "best").exists()


@pytest.mark.parametrize("engine", ["transformers", "openvino"])
def test_the_teacher_writes_for_as_many_readers_as_the_steps_will_see(
    teacher: Path, material: Material, engine: Engine
) -> None:
    settings = WarmStart(steps=2, batch=3, learning_rate=1e-3, checkpoint_every=2, max_new_tokens=24)
    lists = teacher_lists(material, teacher, settings, engine)
    readers = [reader.user_id for reader in material.training[:6]]
    assert 0 < len(lists) <= 6
    assert [row.user_id for row in lists] == [user for user in readers if user in {row.user_id for row in lists}]
    assert all(parse_queries(row.completion) for row in lists)
    every = teacher_lists(material, teacher, msgspec.structs.replace(settings, steps=100), engine)
    assert every[: len(lists)] == lists


@pytest.mark.parametrize(("method", "steps"), [("supervised", 6), ("none", 0)])
def test_the_comparisons_other_rows(
    method: Method, steps: int, on_policy: Path, teacher: Path, material: Material, session: Session, tmp_path: Path
) -> None:
    """`supervised` takes as many steps as both stages of `on-policy` have; `none` takes the pruned model as it is."""
    made = run_student(tmp_path, material, teacher, session, method=method)
    assert (made.method, made.state, made.steps) == (method, "done", steps)
    assert (tmp_path / PRUNED / "model.safetensors").read_bytes() == (
        on_policy / PRUNED / "model.safetensors"
    ).read_bytes()
    unchanged = weights_of(tmp_path / "model").read_bytes() == weights_of(tmp_path / PRUNED).read_bytes()
    assert unchanged == (method == "none")


def test_another_method_is_refused(teacher: Path, material: Material, session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of on-policy, supervised, none"):
        run_student(tmp_path, material, teacher, session, method="offline")  # type: ignore[arg-type]


def test_a_run_of_another_method_is_another_run(
    on_policy: Path, teacher: Path, material: Material, session: Session
) -> None:
    with pytest.raises(UsageError, match="method differ"):
        run_student(on_policy, material, teacher, session, method="none")


def test_more_blocks_than_the_teacher_has_are_refused(
    teacher: Path, material: Material, session: Session, tmp_path: Path
) -> None:
    deep = msgspec.structs.replace(STUDENT_SIZE.student, layers=9)
    with pytest.raises(UsageError, match="keep between 1 and 4, not 9"):
        train_student(tmp_path, material, msgspec.structs.replace(STUDENT_SIZE, student=deep), teacher, session)
    assert not list(tmp_path.iterdir())


def changed(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_student_with_other_tokens_is_refused_before_anything_is_trained(
    base: str, teacher: Path, material: Material, session: Session, seen: list[Progress], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    changed(other, "tokenizer_config.json", eos_token="<|endoftext|>")
    with pytest.raises(UsageError, match="different tokenizers"):
        train_student(tmp_path / "run", material, STUDENT_SIZE, teacher, session, base=str(other))
    assert seen == [] and not (tmp_path / "run").exists()


def test_a_vocabulary_padded_differently_is_refused_and_its_remedy_works(
    teacher: Path, material: Material, session: Session, tmp_path: Path
) -> None:
    """As Qwen2.5's sizes are: one tokenizer, tables of 151,936 and 152,064 rows."""
    padded = load_base(str(teacher))
    rows = padded.model.config.vocab_size
    padded.model.resize_token_embeddings(rows + 64)
    save_model(padded, tmp_path / "padded")
    with pytest.raises(
        UsageError, match=rf"padded differently \({rows + 64} and {rows} rows\).*resize_token_embeddings\({rows + 64}\)"
    ):
        train_student(tmp_path / "run", material, STUDENT_SIZE, teacher, session, base=str(tmp_path / "padded"))
    larger = load_base(str(teacher))
    larger.model.resize_token_embeddings(rows + 64)
    save_model(larger, tmp_path / "teacher")
    none = train_student(
        tmp_path / "run",
        material,
        STUDENT_SIZE,
        tmp_path / "teacher",
        session,
        base=str(tmp_path / "padded"),
        method="none",
    )
    assert none.state == "done"


@pytest.mark.fault
def test_a_killed_student_resumes_and_makes_the_same_model(
    base: str,
    on_policy: Path,
    material: Material,
    session: Session,
    told: list[str],
    seen: list[Progress],
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.offline.training.killed", base, str(tmp_path / "killed"), "student", "2"]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGKILL
    left = read_run_manifest(tmp_path / "killed")
    assert left is not None and left.state == "running"
    assert not (tmp_path / "killed" / "model").exists()
    done = run_student(tmp_path / "killed", material, Path(base), session)
    assert told[-1] == "resuming from checkpoint-1"
    assert [step.step for step in seen] == [2]
    assert (done.state, done.steps) == ("done", 2)
    whole = read_run_manifest(on_policy)  # of a copy of the same teacher
    assert whole is not None and done.model_sha256 == whole.model_sha256


def letters(*, completions: Sequence[str], **_rest: Any) -> list[float | None]:
    """Differs between any two lists of noise, so that there is a gradient."""
    return [sum(map(str.isalpha, text)) / 100 for text in completions]


def test_an_adapter_is_saved_small_merged_and_pruned_to_a_student(
    base: str, material: Material, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA of the teacher, its folder named as a user would: by a relative path."""
    monkeypatch.chdir(tmp_path)
    lora = msgspec.structs.replace(TEACHER, lora_rank=2, steps=1, learning_rate=0.05, checkpoint_every=1)
    size = msgspec.structs.replace(STUDENT_SIZE, teacher=lora)
    shutil.copytree(base, "start")
    varied = msgspec.structs.replace(material, rewards={"letters": letters})
    train_teacher(Path("teacher"), varied, size, "start", session, warm_start=False)
    adapter = Path("teacher", "model")
    assert (adapter / ADAPTER).is_file()
    assert weights_of(adapter).stat().st_size < weights_of(Path(base)).stat().st_size / 4
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    merged, start = load_base(str(tmp_path / adapter)), load_base(base)
    assert type(merged.model) is type(start.model)
    ours, theirs = (one.model.model.layers[0].mlp.up_proj.weight for one in (merged, start))
    assert not torch.equal(ours, theirs)
    made = run_student(tmp_path / "student", material, tmp_path / adapter, session, method="none")
    assert made.state == "done"
    assert load_base(str(tmp_path / "student" / "model")).model.config.num_hidden_layers == 2


def test_a_run_that_a_gate_stops_keeps_the_weights_that_did_best(
    base: str, material: Material, session: Session, told: list[str], tmp_path: Path
) -> None:
    """Random weights never end a list. Of equal measures the earlier weights are kept."""
    varied = msgspec.structs.replace(material, rewards={"letters": letters})
    closed = msgspec.structs.replace(
        TEACHER, steps=4, held_out_every=1, gates=GateSettings(window=1, zero_variance_limit=1.0, clipped_limit=0.0)
    )
    made = train_teacher(
        tmp_path, varied, msgspec.structs.replace(STUDENT_SIZE, teacher=closed), base, session, warm_start=False
    )
    assert (made.state, made.steps) == ("stopped", 1)
    assert "never ended" in made.reason
    held_out = {row["step"]: row[HELD_OUT] for row in Curves(tmp_path).rows if HELD_OUT in row}
    best = max(held_out, key=lambda step: (held_out[step], -step))
    assert made.scores["kept_step"] == best
    assert made.scores[HELD_OUT] == held_out[best]
    assert told[-1] == f"kept are the weights of step {best:.0f}, the best on held-out readers"
    assert not (tmp_path / "best").exists()
    kept, start = load_base(str(tmp_path / "model")).model, load_base(base).model
    unchanged = all(
        torch.equal(ours, theirs) for ours, theirs in zip(kept.parameters(), start.parameters(), strict=True)
    )
    assert unchanged == (best == 0)


@pytest.mark.parametrize("kind", ["warm-start", "teacher"])
def test_a_base_may_be_cut_before_it_is_taught(
    kind: Literal["warm-start", "teacher"], base: str, material: Material, session: Session, tmp_path: Path
) -> None:
    job = TrainingJob(
        kind=kind, folder=str(tmp_path / "small"), base=base, size="tiny", layers=2, steps=3, warm_start=False
    )
    small = run_on(job, sized(job), material, session)
    assert (small.kind, small.state, small.steps) == (kind, "done", 3)
    config = load_base(str(tmp_path / "small" / "model")).model.config
    assert (config.num_hidden_layers, len(blocks_of(config))) == (2, 2)  # the latter: for what is shipped
