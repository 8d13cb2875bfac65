"""`keenstream evaluate` from files to tables: prepared examples, given articles, and MIND's two files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keenstream.commands import application
from offline.event_log import log_parts, read_articles, read_events
from offline.simulate import SimulationSettings, write_simulation
from offline.training.example_set import load_split
from offline.training.tiny import write_tiny
from schemas.article import Article
from schemas.codec import ARTICLES
from schemas.errors import UsageError
from schemas.event import Event
from schemas.queries import signals_as_queries
from tests.integration.model_home import finished_run, prepared_examples
from tests.offline.training.world import write_tokenizer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, model_repository: Path) -> Path:
    """A state folder with the built embedder and nothing else."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "models").mkdir()
    (folder / "models" / "embedder").symlink_to(model_repository.parent / "embedder")
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_examples(tmp_path_factory.mktemp("prepared"))


def run(home: Path, *arguments: str) -> Any:
    """The result; raises the command's own error."""
    result = CliRunner().invoke(application(), arguments, env={"KEENSTREAM_HOME": str(home), "COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def write_lists(path: Path, examples: Path, splits: tuple[Any, ...] = ("held_out", "validation")) -> Path:
    """What a perfect copier of signals would write."""
    rows = [row for split in splits for row in load_split(examples, split)]
    lists = [(row.user_id, "; ".join(signals_as_queries(row.profile, limit=5))) for row in rows]
    path.write_text("".join(json.dumps({"user_id": user, "completions": [text]}) + "\n" for user, text in lists))
    return path


def test_lists_of_a_file_are_judged_beside_the_baselines(home: Path, examples: Path, tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "lists.jsonl", examples)
    options = ("--lists", f"copier={lists}", "--no-sequences", "--seeds", "2", "--readers", "30")
    result = run(home, "evaluate", str(examples), *options, "--out", str(tmp_path / "report"), "--json")
    found = json.loads(result.stdout)
    means = {row["policy"]: row["metrics"]["recall_at_50"]["mean"] for row in found["rows"] if row["group"] == "all"}
    assert means["copier"] == means["own signals (5)"] > 0
    assert {"copier + best baseline", "popularity", "BM25 on recent signals"} <= means.keys()
    assert found["readers"] == 30
    assert found["seeds"] == [1, 2]
    assert found["fused_weights"].keys() == {"copier + best baseline", "copier + own signals (8)"}
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == found
    assert "| copier |" in (tmp_path / "report" / "evaluation.md").read_text()
    assert (tmp_path / "report" / "policies.png").stat().st_size > 5_000
    assert "DEBUG" not in result.output


def test_the_built_cleaner_cleans_signals_for_rows_of_their_own(
    home: Path, examples: Path, model_repository: Path
) -> None:
    with pytest.raises(UsageError, match="holds no cleaner"):
        run(home, "evaluate", str(examples), "--no-sequences", "--cleaner")
    (home / "models" / "cleaner").symlink_to(model_repository.parent / "cleaner")
    found = json.loads(run(home, "evaluate", str(examples), "--no-sequences", "--cleaner", "--json").stdout)
    assert found["cleaner"].startswith("keenstream-cleaner-")
    assert found["dropped"] > 0
    told = {(row["policy"], row["other"]): row["what"] for row in found["findings"]}
    assert told["own signals (8), cleaned", "own signals (8)"] == "the cleaner"


def test_a_run_is_judged_by_the_engine_that_will_serve_it(
    home: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random weights: what counts is that its lists are written, one greedy and one sampled, and scored."""
    folder = tmp_path_factory.mktemp("run")
    run_folder = finished_run(folder / "run", write_base(folder), seed=1)
    model = ("--model", f"student={run_folder}", "--model", f"teacher={run_folder}", "--engine", "openvino")
    readers = ("--readers", "8", "--samples", "2", "--best-of-readers", "4", "--seeds", "1", "--no-sequences")
    options = (*model, *readers, "--keep", str(folder / "kept"), "--out", str(folder / "report"), "--json")
    found = json.loads(run(home, "evaluate", str(examples), *options).stdout)
    policies = {row["policy"]: row["metrics"]["mrr"] for row in found["rows"] if row["group"] == "all"}
    assert {"student", "student, best of 2", "student + best baseline"} <= policies.keys()
    assert policies["student, best of 2"]["readers"] == found["best_of_readers"] == 4
    compared = {(row["policy"], row["other"], row["metric"]) for row in found["findings"]}
    assert {
        ("student", "teacher", "ndcg_at_10"),
        ("student + best baseline", found["best_baseline"], "recall_at_10"),
    } <= compared
    assert policies["student"] == policies["teacher"]  # the same weights
    (kept,) = (folder / "kept").iterdir()
    before = kept.read_bytes()
    assert json.loads(run(home, "evaluate", str(examples), *options).stdout) == found
    assert kept.read_bytes() == before  # nothing was written again
    assert "**What the paper claims**" in (folder / "report" / "evaluation.md").read_text()
    with pytest.raises(UsageError, match="--engine is transformers or openvino"):
        run(home, "evaluate", str(examples), "--model", f"tiny={run_folder}", "--engine", "vllm")


def write_base(folder: Path) -> Path:
    (folder / "tokenizer").mkdir()
    write_tokenizer(folder / "tokenizer")
    write_tiny(folder / "tokenizer", folder / "base", tied=True)
    return folder / "base"


def test_given_articles_make_a_world_of_their_own(home: Path, tmp_path: Path) -> None:
    write_simulation(tmp_path / "world", SimulationSettings(readers=10, articles=300, days=6))
    feed = tmp_path / "feed.jsonl"
    articles = read_articles(tmp_path / "world")
    feed.write_bytes(b"".join(ARTICLES.encode(row) + b"\n" for row in articles))
    result = run(home, "evaluate", "--articles", str(feed), "--simulated", "60", "--no-sequences", "--gap", "0")
    assert "held-out readers with" in result.stdout
    assert "own signals (8)" in result.stdout
    with pytest.raises(UsageError, match="the examples have their own articles"):
        run(home, "evaluate", str(tmp_path), "--articles", str(feed))


def as_mind(log: Path, folder: Path) -> Path:
    """The clicks of a log in MIND's format: an impression for each, with another article that was not clicked."""
    articles, folder = read_articles(log), folder / "mind"
    folder.mkdir()
    row = "{0.article_id}\tnews\t{0.source}\t{0.title}\t{0.summary}\t{0.url}\t[]\t[]\n"
    (folder / "news.tsv").write_text("".join(row.format(article) for article in articles))
    clicks = [event for part in log_parts(log) for event in read_events(part) if event and event.article_id]
    lines = [mind_line(number, event, articles[number % len(articles)]) for number, event in enumerate(clicks)]
    (folder / "behaviors.tsv").write_text("".join(lines))
    return folder


def mind_line(number: int, event: Event, other: Article) -> str:
    at = datetime.fromtimestamp(event.occurred_at / 1000, UTC).strftime("%m/%d/%Y %I:%M:%S %p")
    return f"{number}\t{event.user_id}\t{at}\t\t{event.article_id}-1 {other.article_id}-0\n"


def test_minds_clicks_are_prepared_and_evaluated_and_what_they_lack_is_said(home: Path, tmp_path: Path) -> None:
    settings = SimulationSettings(readers=120, articles=400, events_per_reader=30, days=6)
    write_simulation(tmp_path / "log", settings)
    mind, examples = as_mind(tmp_path / "log", tmp_path), tmp_path / "examples"
    prepared = run(home, "train", "prepare", str(mind), "--out", str(examples))
    assert "MIND has no pages, no searches and no dates of articles" in prepared.output
    lists = write_lists(tmp_path / "lists.jsonl", examples, ("held_out",))
    result = run(home, "evaluate", str(examples), "--lists", f"copier={lists}", "--no-sequences", "--json")
    found = json.loads(result.stdout)
    assert found["readers"] > 10
    assert set(found["fused_weights"].values()) == {1.0}  # no lists for validation readers to choose it on
    rows = {row["policy"]: row["metrics"]["recall_at_50"]["mean"] for row in found["rows"] if row["group"] == "all"}
    assert rows["own signals (8)"] > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--lists", "copier"), "write NAME=PLACE"),
        (("--lists", "copier=missing.jsonl"), "cannot read the lists missing.jsonl"),
        (("--model", "teacher=./missing"), r"cannot load the model \./missing: there is no such folder"),
    ],
)
def test_what_is_not_there_is_told(home: Path, examples: Path, options: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run(home, "evaluate", str(examples), *options)


def test_a_folder_that_was_not_prepared_is_told(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no examples: run `keenstream train prepare"):
        run(home, "evaluate", str(tmp_path))
