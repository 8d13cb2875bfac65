import re
from pathlib import Path

import msgspec
import psutil
import pytest
import typer
from typer.testing import CliRunner

from bench._machine import this_machine
from bench._training_arm import (
    GUARDS,
    WARM_UP,
    ArmDone,
    ArmName,
    ArmSpec,
    Meter,
    StageName,
    StepDone,
    held_out_seconds,
    measured_size,
    peak_gib,
    train_ours,
    train_plain,
)
from bench._training_plain import length_reward
from bench._training_turns import Measured
from bench.training import (
    NEEDED_GIB,
    SIZES,
    TrainingReport,
    check_memory,
    main,
    stage_figures,
    table,
    verdicts,
    write_models,
    write_prompts,
)
from offline.training.bases import load_base
from offline.training.curves import Curves
from offline.training.example_set import MANIFEST, ExamplesManifest, SplitCounts
from offline.training.examples import Example, examples_table
from offline.training.gates import HELD_OUT
from offline.training.material import Material, prompts_of
from offline.training.prepare import write_shard
from offline.training.proposals import TrainingReader
from offline.training.sizes import size_of
from offline.training.tiny import write_tiny
from schemas.errors import KeenstreamError, UsageError
from schemas.profile import Signal
from schemas.prompt import BARE
from tests.offline.training import world

STEPS = 2
SIZE = measured_size("tiny", STEPS)


@pytest.fixture(scope="module")
def material() -> Material:
    """Prompts of different lengths: arms that see other readers, or in another order, count other tokens."""
    made = world.material()
    return msgspec.structs.replace(made, training=[longer(row, place) for place, row in enumerate(made.training)])


def longer(reader: TrainingReader, by: int) -> TrainingReader:
    searched = tuple(Signal(at, f"{reader.user_id}-s{at}", "storm") for at in range(1, by + 1))
    return msgspec.structs.replace(reader, profile=msgspec.structs.replace(reader.profile, search=searched))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    world.write_tokenizer(folder / "tokenizer")
    write_tiny(folder / "tokenizer", folder / "base")
    return write_models(folder, str(folder / "base"), SIZE)


def spec_of(folder: Path, stage: StageName, arm: ArmName, models: tuple[Path, Path], material: Material) -> ArmSpec:
    prompts = folder / "prompts.json"
    prompts.write_bytes(msgspec.json.encode(prompts_of(material.training)))
    teacher, student = map(str, models)
    return ArmSpec(
        stage=stage,
        arm=arm,
        folder=str(folder / f"{stage}-{arm}"),
        prompts=str(prompts),
        examples="",
        home="",
        base=teacher if stage == "teacher" else student,
        teacher=teacher,
        size=SIZE,
        device="cpu",
    )


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_both_arms_do_the_same_work_and_ours_is_the_real_run(
    tmp_path: Path, stage: StageName, models: tuple[Path, Path], material: Material
) -> None:
    ours: list[StepDone] = []
    plain: list[StepDone] = []
    spec = spec_of(tmp_path, stage, "ours", models, material)
    train_ours(spec, material, Meter(ours.append, "cpu"))
    train_plain(spec_of(tmp_path, stage, "plain", models, material), Meter(plain.append, "cpu"))
    assert len(ours) == len(plain) == WARM_UP + STEPS
    assert [step.tokens for step in ours] == [step.tokens for step in plain]
    assert {step.completion_tokens for step in ours + plain} == {SIZE.teacher.max_new_tokens}
    assert all(0 < step.reward_seconds < step.seconds for step in ours) == (stage == "teacher")
    curves = Curves(Path(spec.folder)).rows  # the run's own, with its measure before the first step and no other
    assert [row["step"] for row in curves if HELD_OUT in row] == [0.0]
    assert held_out_seconds(spec, material) > 0


def test_models_of_the_bench_write_to_the_longest_length(models: tuple[Path, Path]) -> None:
    teacher, student = (load_base(str(path)).model for path in models)
    assert teacher.generation_config.min_new_tokens == SIZE.teacher.max_new_tokens
    assert student.generation_config.min_new_tokens == SIZE.student.max_new_tokens
    assert student.config.num_hidden_layers == SIZE.student.layers < teacher.config.num_hidden_layers


def test_the_measured_settings_are_the_sizes_own_but_for_what_stands_apart() -> None:
    apart = {"steps", "checkpoint_every", "held_out_every", "gates"}
    for name in ("tiny", "laptop"):
        real, measured = size_of(name), measured_size(name, 3)
        for before, after in ((real.teacher, measured.teacher), (real.student, measured.student)):
            changed = {field for field in before.__struct_fields__ if getattr(before, field) != getattr(after, field)}
            assert changed <= apart
            assert after.checkpoint_every >= after.steps == WARM_UP + 3
            assert after.held_out_every > after.steps
    assert GUARDS >= 1  # a run without held-out readers is no run


def test_a_step_is_the_time_between_two_turns_and_rewards_are_counted_in_it() -> None:
    now, told = [0.0], list[StepDone]()

    def turn(done: StepDone) -> None:
        told.append(done)
        now[0] += 100.0  # another arm's turn

    def reward(**batch: object) -> list[float | None]:
        now[0] += 2.0
        return [1.0]

    meter = Meter(turn, "cpu", clock=lambda: now[0])
    timed = meter.timed(reward)
    for number in (1, 2):
        now[0] += 5.0
        assert timed(completions=["a"]) == [1.0]
        meter.step({"num_tokens": 300.0 * number, "completions/mean_length": 24.0})
    assert told == [StepDone(seconds=7.0, tokens=300.0, completion_tokens=24.0, reward_seconds=2.0)] * 2


def measured(seconds: list[float], *, tokens: float = 1_000.0, rewards: float = 0.0) -> Measured:
    steps = [
        StepDone(seconds=value, tokens=tokens, completion_tokens=48.0, reward_seconds=rewards) for value in seconds
    ]
    done = ArmDone(peak_gib=3.0, device_peak_gib=0.0, held_out_readers=200, held_out_seconds=0.5)
    return Measured(steps=steps, done=done)


def test_figures_are_paired_by_step() -> None:
    found = stage_figures("GRPO", measured([10, 30, 20], rewards=1.0), measured([10, 20, 25]), held_out_every=20)
    assert (found.ratio.lowest, found.ratio.median, found.ratio.highest) == (0.8, 1.0, 1.5)
    assert found.ours.tokens_per_second.median == 50.0
    assert found.rewards_share is not None
    assert found.rewards_share.median == 0.05
    assert (found.held_out.seconds, found.held_out.step_share) == (100.0, 0.25)  # 5 s each 20-second step


def test_arms_that_read_different_amounts_are_no_result() -> None:
    with pytest.raises(KeenstreamError, match="cannot be compared"):
        stage_figures("GRPO", measured([1.0]), measured([1.0], tokens=999.0), held_out_every=20)


def test_the_report_says_whether_ours_is_slower_and_what_the_rewards_take() -> None:
    figures = stage_figures("GRPO", measured([11.0], rewards=0.22), measured([10.0]), held_out_every=20)
    told = "\n".join(verdicts(figures))
    assert "1.100 times as long as plain TRL" in told
    assert re.search(r"rewards take 2\.0% .* under 5%", told)
    report = TrainingReport(machine=this_machine(), device="cpu", size="laptop", steps=1, prompts=9, stages=())
    assert table(report, figures).row_count == 3


def test_the_peak_is_at_least_what_is_held_now() -> None:
    assert peak_gib() >= psutil.Process().memory_info().rss / 2**30 * 0.99


def test_the_trivial_reward_differs_within_a_group() -> None:
    assert length_reward(completions=["a; b", "", "longer"], prompts=[]) == [4.0, 0.0, 6.0]


def write_examples(folder: Path, count: int) -> Path:
    """As many training readers with a click as asked for, and one without."""
    rows = [
        Example(user_id=row.user_id, at_ms=10, until_ms=20, profile=row.profile, clicked=row.clicked[:place])
        for place, row in enumerate(world.readers(count + 1))
    ]
    (folder / "training").mkdir(parents=True)
    write_shard(folder / "training" / "part-00000.parquet", examples_table(rows))
    manifest = ExamplesManifest(
        sources=(),
        moments=(),
        prompt_version=BARE,
        signals_per_domain=50,
        languages=("en",),
        events=0,
        bad_lines=0,
        readers=len(rows),
        splits={"training": SplitCounts(examples=len(rows))},
        articles=0,
        content_sha256="",
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder


def test_prompts_are_those_of_training_readers_with_clicks_if_they_fill_a_step(tmp_path: Path) -> None:
    path, least = tmp_path / "prompts.json", SIZE.student.batch
    assert write_prompts(write_examples(tmp_path / "enough", least), path, SIZE) == least
    with_clicks = sorted(world.readers(least + 1)[1:], key=lambda row: row.user_id)
    assert msgspec.json.decode(path.read_bytes()) == prompts_of(with_clicks)
    with pytest.raises(UsageError, match=f"{least - 1} training readers with clicks, and a step {least}"):
        write_prompts(write_examples(tmp_path / "few", least - 1), path, SIZE)


def test_too_little_memory_is_told_before_anything_begins() -> None:
    check_memory("laptop", NEEDED_GIB["laptop"])
    with pytest.raises(UsageError, match=r"take up to 16 GiB of memory and 9\.5 are free"):
        check_memory("laptop", 9.5)
    assert set(NEEDED_GIB) == set(SIZES)


def test_help_shows_an_example_and_a_wrong_size_is_refused() -> None:
    app = typer.Typer()
    app.command()(main)
    shown = CliRunner().invoke(app, ["--help"])
    assert "keenstream bench training --size laptop" in " ".join(shown.output.split())
    refused = CliRunner().invoke(app, ["--size", "cluster"])
    assert isinstance(refused.exception, UsageError)
