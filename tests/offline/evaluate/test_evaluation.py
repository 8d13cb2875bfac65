import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from offline.evaluate.answers import Answer, WeightedQuery, fuse, fused_answers, read_answers, write_answers
from offline.evaluate.baselines import ward_clusters
from offline.evaluate.choices import FUSED_WEIGHTS
from offline.evaluate.evaluation import Evaluation, EvaluationSettings, evaluate
from offline.evaluate.held_out import HeldOutReader
from offline.evaluate.model_answers import best_lists, first_lists
from offline.evaluate.plots import best_of_curves, write_plots
from offline.evaluate.policies import Completions, always, of_file, of_served
from offline.evaluate.scores import by_policy, differences, policy_rows, score
from offline.evaluate.table import groups, ranked, shown_differences, told, write_table
from offline.evaluate.task import make_task, refuse_training_readers
from offline.training.example_set import load_split
from schemas.clients.memory_models import MemoryCleaner, MemoryEmbedder, MemoryStudent
from schemas.errors import UsageError
from schemas.profile import latest_signals
from schemas.queries import signals_as_queries

SETTINGS = EvaluationSettings(seeds=(1, 2), sequences=None)
POSITIVES = frozenset({"a", "b"})


def quiet(step: str) -> None:
    assert step


def signals_then_noise(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
    """First a list that finds nothing, then one of the reader's newest signal."""
    return {row.user_id: ("zzz qqq", next(latest_signals(row.profile))[1].text.replace(";", " ")) for row in readers}


@pytest.fixture(scope="module")
def evaluation(examples: Path) -> Evaluation:
    return evaluate(examples, {"model": [always(signals_then_noise)]}, MemoryEmbedder(), SETTINGS, quiet)


def test_every_policy_is_judged_on_the_same_held_out_readers(examples: Path, evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.rows if row.group == "all"]
    names = {row.policy for row in rows}
    assert {"popularity", "recency", "BM25 on recent signals", "own signals (5)", "model", "model, best of 2"} <= names
    assert {"mean history embedding", "history medoids (Ward)", "latest signal", "model + best baseline"} <= names
    assert {row.metrics["mrr"].readers for row in rows} == {evaluation.readers}
    assert evaluation.readers + evaluation.without_positives == len(load_split(examples, "held_out"))
    assert evaluation.best_baseline in names


def test_best_of_n_takes_the_list_that_the_rewards_prefer(evaluation: Evaluation) -> None:
    means = {row.policy: row.metrics["recall_at_50"].mean for row in evaluation.rows if row.group == "all"}
    assert means["model, best of 2"] > means["model"]
    assert means["own signals (8)"] > means["latest signal"]
    pairs = {(row.policy, row.other) for row in evaluation.differences}
    assert {("model, best of 2", "model"), ("model + best baseline", evaluation.best_baseline)} <= pairs
    assert ("model + own signals (8)", "own signals (8)") in pairs


def test_lists_are_compared_with_the_readers_own_signals_at_fifty_too(evaluation: Evaluation) -> None:
    compared = {(row.other, row.metric) for row in evaluation.differences if row.policy == "model"}
    assert {("own signals (5)", "recall_at_10"), ("own signals (5)", "recall_at_50")} <= compared
    assert ("popularity", "recall_at_50") not in compared


def test_lists_that_find_nothing_get_the_least_weight_and_good_ones_more(evaluation: Evaluation) -> None:
    assert evaluation.fused_weights["model + best baseline"] == FUSED_WEIGHTS[0]
    found = {row.policy: row.metrics["recall_at_50"].mean for row in evaluation.rows if row.group == "all"}
    assert found["model + best baseline"] <= found[evaluation.best_baseline]


def test_the_table_says_what_was_measured(evaluation: Evaluation, tmp_path: Path) -> None:
    text = write_table(evaluation, tmp_path).read_text()
    best, *_ = ranked(evaluation, "all")
    assert f"| {best.policy} | {best.metrics['recall_at_5'].mean:.3f} ±" in text
    assert f"{evaluation.readers:,} held-out readers" in text
    assert f"| model | {evaluation.best_baseline} | all | R@10 |" in text
    assert "| model | own signals (8) | all | R@50 |" in text
    assert "weights of lists beside baselines: model + best baseline 0.25" in text
    cells = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert cells == {8, 7, 10}
    assert "| best of 2 by the rewards | model, best of 2 | model | all | R@10 | " in text


def test_groups_that_are_everybody_are_shown_once(evaluation: Evaluation) -> None:
    assert groups(evaluation) == ["all", "cold", "warm"]
    warm = [row for row in evaluation.rows if row.group != "cold"]
    assert groups(msgspec.structs.replace(evaluation, rows=tuple(warm))) == ["all"]


def test_an_evaluation_repeats(examples: Path, evaluation: Evaluation) -> None:
    again = evaluate(examples, {"model": [always(signals_then_noise)]}, MemoryEmbedder(), SETTINGS, quiet)
    assert msgspec.json.encode(again) == msgspec.json.encode(evaluation)


def test_a_model_that_was_trained_twice_has_the_mean_of_both(examples: Path, evaluation: Evaluation) -> None:
    def copying(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
        return {row.user_id: ("; ".join(signals_as_queries(row.profile, limit=5)),) for row in readers}

    def nothing(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
        return {row.user_id: ("zzz qqq",) for row in readers}

    models = {"twice": [always(copying), always(nothing)], "never": [always(nothing)]}
    found = evaluate(examples, models, MemoryEmbedder(), SETTINGS, quiet)
    means = {row.policy: row.metrics["recall_at_50"].mean for row in found.rows if row.group == "all"}
    assert means["twice"] == pytest.approx((means["own signals (5)"] + means["never"]) / 2)
    assert found.trainings == {"twice": 2, "never": 1}
    tens = {row.policy: row.metrics["recall_at_10"].mean for row in found.rows if row.group == "all"}
    assert found.repeats["twice"] == pytest.approx((tens["own signals (5)"], tens["never"]))
    each = ", ".join(f"{value:.3f}" for value in found.repeats["twice"])
    assert f"twice was trained 2 times (Recall@10 {each})." in told(found)


def of_seed(readers: Sequence[HeldOutReader], samples: int, seed: int) -> Completions:
    """A model that samples: greedy it copies the newest signal; what it samples is noise, and of seed 2 another one."""
    rows = {row.user_id: next(latest_signals(row.profile))[1].text.replace(";", " ") for row in readers}
    return {user: (text, *[f"zzz{seed} qqq"] * (samples - 1)) for user, text in rows.items()}


def test_best_of_n_may_be_measured_on_fewer_readers_and_is_compared_on_the_same(examples: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, samples=2, best_of_readers=9)
    found = evaluate(examples, {"model": [always(of_seed)]}, MemoryEmbedder(), settings, quiet)
    rows = {row.policy: row for row in found.rows if row.group == "all"}
    assert [rows[f"model, best of {n}"].metrics["mrr"].readers for n in (1, 2)] == [9, 9]
    assert rows["model"].metrics["mrr"].readers == found.readers > 9
    pair = next(row for row in found.differences if row.policy == "model, best of 2" and row.group == "all")
    both = [rows[f"model, best of {n}"].metrics["recall_at_10"].mean for n in (2, 1)]
    assert pair.difference.mean == pytest.approx(both[0] - both[1])
    assert best_of_curves(list(rows.values()))["model"][0] == (1, rows["model, best of 1"])
    assert "best-of-N on 9 of the readers" in told(found)


def test_best_of_n_may_be_asked_of_some_models_only(examples: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, samples=2, best_of=("one",), most_readers=9)
    models = {"one": [always(of_seed)], "other": [always(of_seed)]}
    found = evaluate(examples, models, MemoryEmbedder(), settings, quiet)
    assert {row.policy for row in found.rows if ", best of" in row.policy} == {"one, best of 2"}
    with pytest.raises(UsageError, match="best-of-N is asked of one, which is no model"):
        evaluate(examples, {"other": [always(of_seed)]}, MemoryEmbedder(), settings, quiet)


def test_a_cleaner_that_drops_the_newest_signals_is_seen_in_rows_of_its_own(examples: Path) -> None:
    readers = load_split(examples, "held_out")
    newest = [next(latest_signals(row.profile)) for row in readers]
    words = [re.findall(r"\w+", signal.text.casefold())[0] for kind, signal in newest if kind != "click"]
    noise = MemoryCleaner(frozenset(words))
    models = {"model": [always(of_seed)], "file": [always(lambda *_: of_seed(held_out_of(examples), 1, 1))]}
    found = evaluate(examples, models, MemoryEmbedder(), SETTINGS, quiet, noise)
    policies = {row.policy for row in found.rows}
    assert {"own signals (5), cleaned", "own signals (8), cleaned", "model, cleaned"} <= policies
    assert "file, cleaned" not in policies  # lists of a file are what they are
    assert 0 < found.dropped < 1
    pairs = {(row.policy, row.other) for row in found.differences}
    assert {("model, cleaned", "model"), ("own signals (8), cleaned", "own signals (8)")} <= pairs
    assert f"{found.cleaner} drops {found.dropped:.1%} of the pages and searches" in told(found)


def held_out_of(examples: Path) -> list[HeldOutReader]:
    return [HeldOutReader(row.user_id, row.profile, POSITIVES) for row in load_split(examples, "held_out")]


def test_of_many_models_only_the_pairs_with_baselines_are_printed(evaluation: Evaluation) -> None:
    many = msgspec.structs.replace(evaluation, trainings=dict.fromkeys(("model", "a", "b", "c"), 1))
    shown = shown_differences(many)
    assert {row.group for row in shown} == {"all"}
    assert {(row.policy, row.other) for row in shown} >= {("model", "own signals (8)"), ("model, best of 2", "model")}
    assert len(shown) < len(shown_differences(evaluation))


def test_plots_are_written(evaluation: Evaluation, tmp_path: Path) -> None:
    assert [path.name for path in write_plots(evaluation, tmp_path)] == ["policies.png", "best_of_n.png"]
    assert all(path.stat().st_size > 5_000 for path in tmp_path.iterdir())


def test_training_readers_are_refused(examples: Path) -> None:
    with pytest.raises(UsageError, match="of the training half"):
        refuse_training_readers(load_split(examples, "training"))
    with pytest.raises(UsageError, match="no held-out readers"):
        refuse_training_readers([])


def test_a_model_without_lists_for_all_is_refused(examples: Path) -> None:
    with pytest.raises(UsageError, match="short has no list for"):
        evaluate(examples, {"short": [always(lambda readers, samples, seed: {})]}, MemoryEmbedder(), SETTINGS, quiet)


def test_scores_by_hand() -> None:
    row = score("p", "u", 2, ["x", "a", "y", "z", "w", "b"], POSITIVES)
    ideal = 1 + 1 / math.log2(3)
    assert (row.recall_at_5, row.recall_at_10, row.mrr) == (0.5, 1.0, 0.5)
    assert row.ndcg_at_5 == pytest.approx(1 / math.log2(3) / ideal)
    assert row.ndcg_at_10 == pytest.approx((1 / math.log2(3) + 1 / math.log2(7)) / ideal)


def test_readers_are_told_apart_by_their_signals_and_differences_are_paired() -> None:
    ours = [score("ours", f"u{n}", n, ["a", "b"] if n % 2 else ["a"], POSITIVES) for n in range(8)]
    theirs = [score("theirs", f"u{n}", n, ["a"], POSITIVES) for n in range(8)]
    groups = {row.group: row for row in policy_rows(by_policy([*ours, *theirs]), seed=1) if row.policy == "ours"}
    assert [groups[name].metrics["mrr"].readers for name in ("all", "cold", "warm")] == [8, 4, 4]
    whole = differences(ours, theirs, seed=1)[0]
    assert whole.ratio is not None
    assert (whole.difference.mean, whole.ratio.mean) == (0.25, 1.5)
    assert 0 < whole.difference.low < 0.25 < whole.difference.high < 0.5
    assert 1 < whole.ratio.low < 1.5 < whole.ratio.high < 2


def test_fusing_ranks_what_both_found_first() -> None:
    assert fuse([(["a", "b", "c"], 1.0), (["d", "b"], 1.0)])[0] == "b"
    assert fuse([(["a"], 1.0), (["d"], 2.0)]) == ["d", "a"]
    left = {"u": Answer(user_id="u", queries=(WeightedQuery("q"),))}
    right = {"u": Answer(user_id="u", queries=(WeightedQuery("r", 0.5),), ranked=("a",))}
    assert fused_answers(left, right) == [
        Answer(user_id="u", queries=(WeightedQuery("q"), WeightedQuery("r", 0.5)), ranked=("a",))
    ]


def test_answers_and_lists_as_files(tmp_path: Path) -> None:
    rows = [Answer(user_id="u", queries=(WeightedQuery("q", 0.5),)), Answer(user_id="v", ranked=("a",))]
    write_answers(tmp_path / "answers.jsonl", rows)
    assert list(read_answers(tmp_path / "answers.jsonl").values()) == rows
    (tmp_path / "lists.jsonl").write_text('{"user_id": "u", "completions": ["a; b"]}\n')
    with of_file(tmp_path / "lists.jsonl")(quiet) as write:
        assert [query.text for query in first_lists(write([], 1, 1))[0].queries] == ["a", "b"]
    (tmp_path / "lists.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="user_id and completions"):
        of_file(tmp_path / "lists.jsonl")


def test_clusters_follow_the_directions() -> None:
    vectors = np.array([[1, 0], [0.99, 0.14], [0, 1], [0.1, 0.995]], dtype=np.float32)
    labels = ward_clusters(vectors)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert len(ward_clusters(vectors[:1])) == 1


async def test_a_served_model_of_another_prompt_is_refused(examples: Path) -> None:
    readers = held_out_of(examples)[:3]
    found = await of_served(MemoryStudent(), "examples-1", readers, 20, 1)
    assert {len(texts) for texts in found.values()} == {20}
    with pytest.raises(UsageError, match="made for the prompt examples-1, not bare-1"):
        await of_served(MemoryStudent(), "bare-1", readers, 1, 1)


def test_only_signals_and_lists_choose_the_best(examples: Path) -> None:
    readers = held_out_of(examples)[:2]
    texts = {row.user_id: ("one", "two", "three") for row in readers}
    longest = {"length": lambda completions, **columns: [float(len(text)) for text in completions]}
    found = best_lists(texts, readers, longest)  # type: ignore[arg-type]
    assert {n: rows[0].queries[0].text for n, rows in found.items()} == {1: "one", 2: "one"}


def test_weights_say_which_list_is_the_best(examples: Path) -> None:
    readers = held_out_of(examples)[:1]
    texts = {readers[0].user_id: ("three", "one")}
    rewards = {
        "length": lambda completions, **columns: [float(len(text)) for text in completions],
        "short": lambda completions, **columns: [-1.5 * len(text) for text in completions],
    }
    best = [
        best_lists(texts, readers, rewards, weights)[2][0].queries[0].text  # type: ignore[arg-type]
        for weights in ({}, {"short": 0.0}, {"length": 2.0})
    ]
    assert best == ["one", "three", "three"]


def test_a_misspelt_reward_is_told_at_once(tmp_path: Path) -> None:
    settings = EvaluationSettings(reward_weights={"diverse": 0.0})
    with pytest.raises(UsageError, match="no reward is called diverse: there are align, coverage"):
        evaluate(tmp_path, {}, MemoryEmbedder(), settings, print)


def test_few_readers_can_be_asked_for(examples: Path) -> None:
    rows = load_split(examples, "held_out")
    task = make_task(examples, rows, MemoryEmbedder(), fresh_days=3.0, most_readers=2)
    assert len(task.readers) == 2
    assert 0 < len(task.validation) <= 2


def test_news_of_the_window_can_be_in_the_pool(examples: Path) -> None:
    rows = load_split(examples, "held_out")
    tasks = [
        make_task(examples, rows, MemoryEmbedder(), fresh_days=3.0, most_readers=0, later_news=later)
        for later in (False, True)
    ]
    alive, both = ({article.article_id for article in task.news.pool} for task in tasks)
    assert alive < both
    first, until_ms = rows[0].at_ms, rows[0].until_ms
    assert all(first < row.published_at <= until_ms for row in tasks[1].news.pool if row.article_id not in alive)
    assert tasks[1].without_positives < tasks[0].without_positives
