"""The held-out readers of prepared examples, as a release is judged on them."""

from pathlib import Path

from offline.evaluate.local_embedder import LocalEmbedder
from offline.release.models import ModelPaths
from offline.release.releases import HeldOut
from offline.training.example_set import load_articles
from offline.training.loading import as_reader, held_out_rank, reported_readers
from offline.training.material import SIGNAL_QUERIES, mean_recall, prompts_of
from schemas.config import Api
from schemas.errors import UsageError
from schemas.queries import signals_as_queries


def held_out_of(examples: Path, home: Path, most: int) -> HeldOut:
    """The first `most` held-out readers with clicks; UsageError when there is none."""
    rows = reported_readers(examples, most)
    if not rows:
        raise UsageError(f"{examples} has no held-out reader with clicks: prepare a log of more readers")
    embedder = LocalEmbedder(ModelPaths.below(home).embedder)
    rank = held_out_rank(load_articles(examples), rows, embedder, Api())
    readers = [as_reader(row) for row in rows]
    signals = [signals_as_queries(reader.profile, limit=SIGNAL_QUERIES) for reader in readers]
    return HeldOut(
        prompts=prompts_of(readers),
        recall=lambda lists: mean_recall(rank, readers, lists),
        signals=mean_recall(rank, readers, signals),
    )
