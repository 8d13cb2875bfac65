"""A cleaner from a run to a server: converted, checked, shipped, served, taken back."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from keenstream.stack.triton import triton_server
from keenstream.stack.triton_probe import probe_triton
from offline.release.cleaner import NAME, WEIGHTS, ShippedCleaner, build_cleaner, convert, read_shipped
from offline.release.cleaner_serving import MOST_BYTES, check_worth, rollback_cleaner, serve_cleaner, ship_cleaner
from offline.release.manifest import read_manifest
from offline.release.repository import add_version, served_models
from offline.release.served_code import ServedCleaner
from offline.release.triton_swap import TritonModelServer
from offline.training.bases import save_model
from offline.training.cleaner import JUDGED, SCORES, Judged
from offline.training.cleaner_scores import BOTH, CLEANER, RULES, CleanerScore, Share
from offline.training.manifest import RunManifest, write_run_manifest
from offline.training.sequence_classifier import load_classifier, new_classifier, noise_probabilities
from schemas.clients.triton import TritonCleaner
from schemas.errors import KeenstreamError, Unavailable, UsageError
from schemas.names import Model

TEXTS = ["facebook login", "brisket rub", "", "漢字 😀", "order 77", "one " * 300, "a", "Trail map for beginners"]


def quiet(_step: str) -> None:
    return None


def score(system: str, recall: float, wrong: float = 0.0) -> CleanerScore:
    share = Share(recall, recall, recall)
    return CleanerScore(
        system=system, texts="unseen", precision=share, recall=share, wrongly_dropped=wrong, rows=9, to_drop=3
    )


def write_run(folder: Path, *, seed: int, scores: Sequence[CleanerScore]) -> Path:
    """A finished run of random weights: what it is worth is said by `scores`."""
    made = new_classifier(TEXTS * 5, seed=seed)
    for weight in made.model.parameters():  # as far from one another as those of trained weights
        weight.data *= 8 if weight.ndim == 2 else 1
    folder.mkdir()
    save_model(made, folder / "model")
    noise = noise_probabilities(made.model, made.tokenizer, TEXTS)
    rows = [Judged(text, float(share)) for text, share in zip(TEXTS, noise, strict=True)]
    (folder / JUDGED).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    (folder / SCORES).write_bytes(msgspec.json.encode(list(scores)))
    digest = f"{seed:x}" * 64
    manifest = RunManifest(
        kind="cleaner", size="tiny", settings={}, data_sha256="d" * 64, base="tiny", state="done", model_sha256=digest
    )
    write_run_manifest(folder, manifest)
    return folder


WORTHY = [score(RULES, 0.2), score(CLEANER, 0.5), score(BOTH, 0.6, 0.01)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    return [write_run(place / str(seed), seed=seed, scores=WORTHY) for seed in (1, 2)]


@pytest.fixture(scope="module")
def served(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "cleaner"
    convert(runs[0] / "model", folder, version="9", source="test", progress=quiet)
    return folder


@pytest.fixture
def repository(served: Path, tmp_path: Path) -> Path:
    target = tmp_path / "models" / "repository"
    add_version(target, Model.CLEANER, served, version=1)
    return target


class LatestVersion:
    """Takes the greatest version at a load, as Triton does; `broken` weights cannot be loaded."""

    def __init__(self, repository: Path, broken: str = "") -> None:
        self._folder, self._broken, self._now = repository / Model.CLEANER, broken, ""

    def load(self) -> None:
        latest = max((path for path in self._folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
        manifest = read_manifest(latest / "weights")
        assert manifest is not None
        if self._broken and self._broken in manifest.version:
            raise Unavailable("the engine failed")
        self._now = f"{manifest.name}-{manifest.version}"

    def versions(self) -> tuple[str, str]:
        return self._now, ""


def versions(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / Model.CLEANER).iterdir() if path.is_dir())


def test_the_graph_judges_as_the_model_does_at_any_length(runs: list[Path], served: Path) -> None:
    loaded = load_classifier(str(runs[0] / "model"))
    trained = noise_probabilities(loaded.model, loaded.tokenizer, TEXTS)
    assert trained.max() - trained.min() > 0.1
    engine = ServedCleaner(served)
    np.testing.assert_allclose(engine.judge(TEXTS), trained, atol=1e-3)
    np.testing.assert_allclose(engine.judge(TEXTS[1:2]), trained[1:2], atol=1e-3)  # alone, without padding
    assert len(engine.judge([])) == 0


def test_both_engines_agree(runs: list[Path], served: Path) -> None:
    from tests.triton_models.code import load, served_code

    with served_code("cleaner"):
        engines = load("engines")
    slow: Any = engines.TransformersEngine(runs[0] / "model", 1, "f32")
    np.testing.assert_allclose(slow.judge(TEXTS), ServedCleaner(served).judge(TEXTS), atol=1e-3)
    with pytest.raises(ValueError, match="choose openvino or transformers"):
        engines.make_engine({"engine": "x", "weights": "w", "threads": "1", "precision": "f32"}, Path("unused"))


def test_what_is_converted_is_not_converted_again(runs: list[Path], served: Path) -> None:
    steps: list[str] = []
    again = convert(runs[0] / "model", served, version="9", source="test", progress=steps.append)
    assert (steps, again.name, again.version) == ([], NAME, "9")


@pytest.fixture(scope="module")
def shipped(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShippedCleaner]:
    target = tmp_path_factory.mktemp("shipped") / "trained"
    return target, ship_cleaner(runs[1], target, quiet, version="3", commands=["keenstream train cleaner"])


def test_shipped_weights_are_small_whole_and_judge_as_trained(
    runs: list[Path], shipped: tuple[Path, ShippedCleaner], tmp_path: Path
) -> None:
    target, made = shipped
    assert read_shipped(target) == made
    assert (made.version, made.data_sha256, made.base, made.commands) == (
        "3",
        "d" * 64,
        "tiny",
        ("keenstream train cleaner",),
    )
    assert sum(path.stat().st_size for path in target.iterdir()) < MOST_BYTES / 2
    assert build_cleaner(tmp_path / "served", quiet, target) is not None
    trained = load_classifier(str(runs[1] / "model"))
    noise = noise_probabilities(trained.model, trained.tokenizer, TEXTS)
    np.testing.assert_allclose(ServedCleaner(tmp_path / "served").judge(TEXTS), noise, atol=0.02)


def test_a_shipped_folder_that_is_not_whole_is_refused(shipped: tuple[Path, ShippedCleaner], tmp_path: Path) -> None:
    assert read_shipped(tmp_path) is None
    assert build_cleaner(tmp_path / "served", quiet, tmp_path) is None
    target = tmp_path / "trained"
    shutil.copytree(shipped[0], target)
    (target / WEIGHTS).write_bytes((target / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(UsageError, match="is missing or not what"):
        read_shipped(target)
    (target / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="does not say what is shipped"):
        read_shipped(target)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([score(RULES, 0.2), score(BOTH, 0.2)], "finds no noise that the rules do not find"),
        ([score(RULES, 0.2), score(BOTH, 0.9, 0.03)], r"drops 3\.0% of what"),
    ],
)
def test_a_cleaner_that_earns_nothing_is_told_why(scores: list[CleanerScore], says: str) -> None:
    check_worth(WORTHY)
    with pytest.raises(UsageError, match=says):
        check_worth(scores)


def test_a_cleaner_that_earns_nothing_is_served_by_force_only(repository: Path, tmp_path: Path) -> None:
    poor = write_run(tmp_path / "poor", seed=3, scores=[score(RULES, 0.2), score(BOTH, 0.2)])
    with pytest.raises(UsageError, match="it earns nothing"):
        serve_cleaner(poor, repository, None, quiet)
    assert versions(repository) == ["1"]
    serve_cleaner(poor, repository, None, quiet, force=True)
    assert versions(repository) == ["1", "2"]


def test_a_conversion_that_judges_otherwise_is_not_served(repository: Path, tmp_path: Path) -> None:
    odd = write_run(tmp_path / "odd", seed=4, scores=WORTHY)
    (odd / JUDGED).write_bytes(msgspec.json.encode(Judged("brisket rub", 2.0)) + b"\n")
    with pytest.raises(KeenstreamError, match="the conversion broke the model"):
        serve_cleaner(odd, repository, None, quiet)
    assert versions(repository) == ["1"]
    assert [path.name for path in repository.parent.iterdir()] == ["repository"]


def test_the_next_version_is_served_and_the_one_before_it_again(runs: list[Path], repository: Path) -> None:
    server = LatestVersion(repository)
    assert serve_cleaner(runs[0], repository, server, quiet) == f"{NAME}-{'1' * 12}"
    assert serve_cleaner(runs[1], repository, server, quiet) == server.versions()[0] == f"{NAME}-{'2' * 12}"
    assert versions(repository) == ["1", "2", "3"]
    assert rollback_cleaner(repository, server) == server.versions()[0] == f"{NAME}-{'1' * 12}"
    assert rollback_cleaner(repository, server) == f"{NAME}-9"
    with pytest.raises(UsageError, match="version 1 is the only one"):
        rollback_cleaner(repository, server)


def test_a_version_that_does_not_answer_is_taken_back(runs: list[Path], repository: Path) -> None:
    server = LatestVersion(repository, broken="1" * 12)
    with pytest.raises(KeenstreamError, match="was taken back, what was served before is served: the engine failed"):
        serve_cleaner(runs[0], repository, server, quiet)
    assert (versions(repository), server.versions()[0]) == (["1"], f"{NAME}-9")


@pytest.mark.stack
async def test_a_running_triton_takes_the_next_version_and_gives_it_back(
    runs: list[Path], repository: Path, tmp_path: Path
) -> None:
    def judge_by(grpc: str) -> None:
        probe_triton(grpc, [Model.CLEANER])

    with triton_server(tmp_path / "run", repository, [Model.CLEANER], probe=judge_by, niceness=0) as triton:
        assert served_models(repository) == (Model.CLEANER,)
        client, server = (
            TritonCleaner(triton.grpc, deadline_seconds=30.0),
            TritonModelServer(triton.grpc, Model.CLEANER),
        )
        before = await client.judge(TEXTS)
        version = await asyncio.to_thread(serve_cleaner, runs[1], repository, server, quiet)
        after = await client.judge(TEXTS)
        assert (before.model_version, after.model_version) == (f"{NAME}-9", version)
        assert after.noise != before.noise
        assert await asyncio.to_thread(rollback_cleaner, repository, server) == f"{NAME}-9"
        assert await client.judge(TEXTS) == before
        await client.close()
