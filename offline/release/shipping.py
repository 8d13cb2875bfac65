"""From a finished run to the folder that the repository ships: weights, checks on held-out readers, manifest."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from offline.release.adapter import Fit, cut_to, write_adapter
from offline.release.agreement import agreement, check_agreement
from offline.release.difference import write_difference
from offline.release.folders import build_folder
from offline.release.manifest import check_prompt_version, sha256_of
from offline.release.promotion import check_scores
from offline.release.releases import LEAST_OVERLAP, HeldOut, list_length, served_lists
from offline.release.shipped import BASE, MOST_BYTES, ShippedManifest, merged_in, weights_in, write_shipped
from offline.release.student import Progress, convert
from offline.training.bases import load_base
from offline.training.greedy import ListWriter
from offline.training.manifest import RunManifest, finished_run
from offline.training.pruning import blocks_of
from offline.training.run import MODEL
from offline.training.vocabulary import tokenizer_sha256
from schemas.errors import UsageError
from schemas.prompt import BARE
from schemas.queries import parse_queries

EVALUATION = ("evaluation.json", "evaluation.md")  # as `keenstream evaluate --out` writes them


class Shipping(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is shipped."""

    version: str
    rank: int = 32  # SmolLM2-135M: 0.61 MB for each rank, 0.1 more where embeddings were trained
    bits: int = 0  # of each number that training changed, instead of an adapter: 4 need half a megabyte for a million
    least_overlap: float = LEAST_OVERLAP
    precision: str = "auto"
    commands: tuple[str, ...] = ()
    evaluation: Path | None = None
    force: bool = False  # also when it does not beat the reader's own signals


def ship_run(
    run_folder: Path, base_folder: Path, target: Path, held_out: HeldOut, settings: Shipping, progress: Progress
) -> ShippedManifest:
    """Write `target` from a run that began with the model in `base_folder`; a check that fails leaves nothing there."""
    run = finished_run(run_folder)
    check_prompt_version(run.prompt_version)
    shipment = _Shipment(run, run_folder, base_folder, held_out, settings, progress)
    made: list[ShippedManifest] = []
    build_folder(target, lambda folder: made.append(shipment.fill(folder)))
    return made[0]


class _Shipment(msgspec.Struct, frozen=True):
    """One run on its way."""

    run: RunManifest
    run_folder: Path
    base_folder: Path
    held_out: HeldOut
    settings: Shipping
    progress: Progress

    def fill(self, folder: Path) -> ShippedManifest:
        described = self._described(folder)
        before, after = self._lists(described, folder)
        scores = self.held_out.score([parse_queries(text) for text in after])
        if not self.settings.force:
            check_scores(f"version {described.version}", scores)
        found = check_agreement(agreement(before, after[: len(before)]), self.settings.least_overlap)
        shipped = msgspec.structs.replace(described, agreement=found, scores=scores)
        write_shipped(folder, shipped)
        _copy_evaluation(self.settings.evaluation, folder)
        check_bytes(folder, self.settings.rank, self.settings.bits)
        return shipped

    def _described(self, folder: Path) -> ShippedManifest:
        """The adapter is written; what it is worth is not known yet."""
        run, tokenizer = self.run, tokenizer_sha256(self.base_folder)
        if tokenizer_sha256(self.run_folder / MODEL) != tokenizer:
            raise UsageError(
                f"{self.run_folder} was trained with another tokenizer than {BASE}: ship a run of that base"
            )
        trained = load_base(str(self.run_folder / MODEL)).model
        blocks = blocks_of(trained.config)
        fit = self._write_weights(trained, blocks, folder)
        return ShippedManifest(
            version=self.settings.version,
            prompt_version=BARE,
            blocks=blocks,
            rank=fit.rank,
            bits=fit.bits,
            explained=fit.explained,
            adapter_sha256=sha256_of(weights_in(folder, fit.bits)),
            tokenizer_sha256=tokenizer,
            kind=run.kind,
            method=run.method,
            size=run.size,
            steps=run.steps,
            data_sha256=run.data_sha256,
            model_sha256=run.model_sha256,
            commit=run.commit,
            commands=self.settings.commands,
        )

    def _write_weights(self, trained: Any, blocks: Sequence[int], folder: Path) -> Fit:
        bits, rank = self.settings.bits, self.settings.rank
        self.progress(f"cutting what training changed to {f'{bits} bits' if bits else f'rank {rank}'}")
        base = cut_to(load_base(str(self.base_folder)).model, blocks)
        if bits:
            return write_difference(trained, base, bits=bits, folder=folder)
        return write_adapter(trained, base, rank=rank, base_name=BASE, folder=folder)

    def _lists(self, shipped: ShippedManifest, folder: Path) -> tuple[list[str], list[str]]:
        """Of the held-out readers: by the run's weights, and by those that set-up will build and serve."""
        prompts, names = self.held_out.prompts, {"name": shipped.name, "version": shipped.version}
        with merged_in(shipped, folder, self.base_folder) as merged:
            served = Path(merged) / "served"
            convert(Path(merged), served, **names, source=BASE, prompt_version=BARE, progress=self.progress)
            self.progress(f"writing {len(prompts)} lists with the shipped weights, some with the run's too")
            after = served_lists(self.run, served, self.held_out, self.settings.precision)
        trained = ListWriter(*load_base(str(self.run_folder / MODEL))[:2], max_new_tokens=list_length(self.run))
        return trained.write(prompts[: self.held_out.compared]), after


def check_bytes(folder: Path, rank: int, bits: int = 0) -> int:
    """Of all files; UsageError when they are too many for a repository."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if total > MOST_BYTES:
        name, now = ("bits", bits) if bits else ("rank", rank)
        raise UsageError(
            f"{total / 1e6:.1f} MB are too many to ship, {MOST_BYTES / 1e6:.0f} are allowed: "
            f"--{name} {max(1, int(now * MOST_BYTES / total))} fits"
        )
    return total


def _copy_evaluation(report: Path | None, folder: Path) -> None:
    for name in EVALUATION if report else ():
        try:
            shutil.copyfile(Path(report or "") / name, folder / name)
        except FileNotFoundError:
            raise UsageError(f"{report} has no {name}: run `keenstream evaluate --out {report}` first") from None
