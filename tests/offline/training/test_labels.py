from pathlib import Path

import msgspec
import pytest

from offline.reader_groups import SPLITS, split_of
from offline.simulate import SimulationSettings, write_simulation
from offline.training.labels import Label, distinct, load_labels, read_labels, split_of_label
from schemas.cleaning import tidy_text
from schemas.codec import EVENTS
from schemas.errors import UsageError

SMALL = SimulationSettings(readers=100, articles=300, events_per_reader=10, days=4.0, noise="wide", noise_share=0.4)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    write_simulation(folder, SMALL)
    return folder


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_simulation_gives_the_pages_and_searches_that_it_knows_to_be_noise(simulated: Path) -> None:
    rows = list(read_labels(simulated))
    events = {row.event_id: row for row in map(EVENTS.decode, (simulated / "events.jsonl").read_bytes().splitlines())}
    judged = [event for event in events.values() if event.kind != "click"]
    assert sorted((row.user_id, row.kind, row.text) for row in rows) == sorted(
        (event.user_id, event.kind, tidy_text(event.text)) for event in judged
    )
    share = sum(row.dropped for row in rows) / len(rows)
    assert share == pytest.approx(SMALL.noise_share, abs=0.08)


def test_rows_are_split_by_reader(simulated: Path) -> None:
    labels = load_labels([simulated])
    for name in SPLITS:
        rows = getattr(labels, name)
        assert rows
        assert {split_of(row.user_id) for row in rows} == {name}


def test_files_and_simulations_may_be_mixed_and_the_hash_says_so(simulated: Path, tmp_path: Path) -> None:
    own = write(
        tmp_path / "own.jsonl", '{"text": "brisket  rub", "label": "keep"}', "", '{"text": "x", "label": "drop"}'
    )
    assert list(read_labels(own)) == [Label("brisket rub", "keep"), Label("x", "drop")]
    both, alone = load_labels([simulated, own]), load_labels([simulated])
    counts = [sum(len(getattr(labels, name)) for name in SPLITS) for labels in (both, alone)]
    assert counts[0] == counts[1] + 2
    assert both.sha256 != alone.sha256


def test_texts_of_one_form_stand_on_one_side() -> None:
    forms = ["Order #123 confirmed", "order #9  confirmed", "ORDER #77 Confirmed"]
    assert len({split_of_label(Label(text, "drop")) for text in forms}) == 1
    assert len({split_of_label(Label(f"text {'x' * n}", "drop")) for n in range(1, 60)}) == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"label": "keep"}', "missing required field `text`"),
        ('{"text": "a"}', "missing required field `label`"),
        ('{"text": "a", "label": "noise"}', r"\$\.label"),
        ('{"text": "", "label": "keep"}', r"\$\.text"),
        ('{"text": "\\u200b ", "label": "keep"}', "`text` holds no visible"),
        ('{"text": "a", "label": "keep", "kind": "click"}', r"\$\.kind"),
        ('{"text": "a", "label": "keep", "lable": "x"}', "lable"),
        ("keep,a", "malformed"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str, says: str) -> None:
    path = write(tmp_path / "own.jsonl", '{"text": "fine", "label": "keep"}', line)
    with pytest.raises(UsageError, match=f"own.jsonl, line 2: .*{says}"):
        list(read_labels(path))


def test_labels_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    rows = [msgspec.json.encode(Label(f"text {'x' * n}", "keep")).decode() for n in range(1, 60)]
    with pytest.raises(UsageError, match="training labels have no 'drop'"):
        load_labels([write(tmp_path / "own.jsonl", *rows)])
    with pytest.raises(UsageError, match="no labels at"):
        load_labels([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no truth\.jsonl"):
        load_labels([tmp_path / "empty"])


def test_each_text_is_learnt_once_with_the_verdict_of_most() -> None:
    rows = [Label("Weather", "drop"), Label("weather", "drop"), Label("weather", "keep"), Label("even", "drop")]
    assert distinct([*rows, Label("even", "keep")]) == [Label("Weather", "drop"), Label("even", "keep")]
