"""What a run is given may teach nothing, be cut short, or be of another time: one sentence each, nothing half done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offline.reader_groups import split_of
from offline.runners import RunnerSettings
from offline.simulate import ARTICLES_FILE, EVENTS_FILE, SimulationSettings, write_simulation
from offline.training.bases import load_base
from offline.training.best import Best, Measured
from offline.training.example_set import ARTICLES, load_articles, write_articles
from offline.training.job import TrainingJob, run_job
from offline.training.labels import load_labels
from offline.training.loading import load_material
from offline.training.material import Material
from offline.training.preparation import PrepareSettings, prepare_examples
from offline.training.stage import Session, SliceOver
from offline.training.teacher import kept_lists, train_teacher
from schemas.clients.memory_models import MemoryEmbedder
from schemas.codec import EVENTS
from schemas.config import Api
from schemas.errors import KeenstreamError, UsageError
from schemas.event import Event
from tests.offline.training import world
from tests.offline.training.runs import TEACHER, run_stage

WORLD = SimulationSettings(readers=120, articles=300, events_per_reader=20, days=6)
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_simulation(folder, WORLD)
    return folder


def prepared(log: Path, folder: Path, keep: Callable[[Event], bool]) -> Path:
    """Examples from the events that are kept."""
    part, out = folder / "log", folder / "examples"
    part.mkdir()
    (part / ARTICLES_FILE).write_bytes((log / ARTICLES_FILE).read_bytes())
    lines = [line for line in (log / EVENTS_FILE).read_bytes().splitlines() if keep(EVENTS.decode(line))]
    (part / EVENTS_FILE).write_bytes(b"\n".join(lines) + b"\n")
    prepare_examples(part, out, PrepareSettings(), RunnerSettings(), lambda step, done, total: None)
    return out


def material_of(examples: Path, **settings: Any) -> Material:
    return load_material(examples, MemoryEmbedder(), Api(), **settings)


@pytest.mark.parametrize(("split", "told"), [("training", "has 0 training"), ("validation", "and 0 validation")])
def test_a_split_without_clicks_is_named(log: Path, tmp_path: Path, split: str, told: str) -> None:
    examples = prepared(log, tmp_path, lambda event: event.kind != "click" or split_of(event.user_id) != split)
    with pytest.raises(UsageError, match=rf"{told} .*: prepare a longer log, or one of more readers"):
        material_of(examples)


def test_one_training_reader_is_too_few_however_often_seen(log: Path, tmp_path: Path) -> None:
    examples = prepared(log, tmp_path, lambda event: True)
    assert len(material_of(examples).training) > 5
    with pytest.raises(UsageError, match=r"hold 1 training reader\(s\) with clicks: .* prepare a log of more readers"):
        material_of(examples, most_readers=1)


def test_an_index_older_than_the_examples_is_refused(log: Path, tmp_path: Path) -> None:
    """Though it was prepared: the articles may have been put there later."""
    examples = prepared(log, tmp_path, lambda event: True)
    old = [msgspec.structs.replace(row, published_at=row.published_at - 40 * DAY_MS) for row in load_articles(examples)]
    write_articles(examples / ARTICLES, old)
    with pytest.raises(UsageError, match=r"the newest article is \d\d\.\d days older than the examples: prepare them"):
        material_of(examples)


def test_a_run_whose_rewards_are_all_zero_fails_and_leaves_no_model(
    base: str, material: Material, session: Session, tmp_path: Path
) -> None:
    def nothing(*, completions: Sequence[str], **_rest: Any) -> list[float | None]:
        return [0.0] * len(completions)

    poor = msgspec.structs.replace(material, rewards={"structure": nothing})
    for _ in range(2):  # nor does it pass for done when it is repeated
        with pytest.raises(KeenstreamError, match=r"in all 4 steps of .* every reward is zero, .* in another folder"):
            run_stage("teacher", tmp_path, base, poor, session)
        assert not (tmp_path / "model").exists()


def test_a_reward_that_always_abstains_stops_the_run_and_breaks_nothing(
    base: str, material: Material, session: Session, tmp_path: Path
) -> None:
    """Its mean is no number, which transformers logs as None."""

    def silent(*, completions: Sequence[str], **_rest: Any) -> list[float | None]:
        return [None] * len(completions)

    mute = msgspec.structs.replace(material, rewards=dict(material.rewards) | {"judge": silent})
    gates = msgspec.structs.replace(TEACHER.gates, window=2)
    size = msgspec.structs.replace(world.SIZE, teacher=msgspec.structs.replace(TEACHER, gates=gates))
    done = train_teacher(tmp_path, mute, size, base, session, warm_start=False)
    assert (done.state, done.steps) == ("stopped", 2)
    assert done.reason == "the reward 'judge' abstained in 100%: look at its judge"


def test_a_run_without_a_whole_checkpoint_says_that_it_begins_again(
    base: str, material: Material, session: Session, told: list[str], tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(SliceOver):
            run_stage("warm-start", tmp_path, base, material, msgspec.structs.replace(session, until=0.0))
    for step in (1, 2):
        cut(tmp_path / "checkpoints" / f"checkpoint-{step}" / "optimizer.pt")
    told.clear()
    assert run_stage("warm-start", tmp_path, base, material, session).state == "done"
    assert [sentence.partition(" is not whole")[0] for sentence in told] == [
        "checkpoint-2",
        "checkpoint-1",
        "no checkpoint is whole: beginning with the first step",
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_weights_and_lists_that_are_cut_short_are_named(base: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in Path(base).iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    cut(model / "model.safetensors")
    with pytest.raises(UsageError, match=r"cannot load the model .*, is a file cut short or missing\?"):
        load_base(str(model))
    (tmp_path / "lists.jsonl").write_text('{"user_id": "u1", "pro')
    with pytest.raises(UsageError, match=r"lists.jsonl is cut short .*: delete it, and the run makes it anew"):
        kept_lists(tmp_path, list)


def test_best_weights_with_a_record_that_is_cut_short_are_none(tmp_path: Path) -> None:
    best = Best(tmp_path)
    best.offer(Measured(step=1, value=0.5), lambda folder: folder.mkdir())
    cut_record = tmp_path / "best" / "held_out.json"
    cut_record.write_bytes(cut_record.read_bytes()[:5])
    assert best.measured() is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beyond": ("hits",)}, "no reward beyond the paper's is called hits: there are hit, expected_hit, copying"),
        ({"reward_weights": {"aline": 1.0}}, "no reward is called aline: there are align"),
        ({"reward_weights": {"align": float("nan")}}, "the weight of a reward is a number"),
        (
            {"reward_weights": dict.fromkeys(("align", "coverage", "specificity", "diversity", "structure"), 0.0)},
            "every reward has weight 0",
        ),
    ],
)
def test_rewards_that_there_are_not_are_told_before_anything_is_read(
    session: Session, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    job = TrainingJob(kind="teacher", folder=str(tmp_path / "run"), examples="none", home=str(tmp_path), **changes)
    with pytest.raises(UsageError, match=says):
        run_job(job, session)
    assert not list(tmp_path.iterdir())


def test_labels_from_a_folder_that_is_no_simulation_say_what_is_needed(log: Path, tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_bytes((log / EVENTS_FILE).read_bytes())
    with pytest.raises(UsageError, match=r"has no truth.jsonl, .*: name such a folder, or a file of JSON Lines"):
        load_labels([tmp_path])
