"""Prepared examples as the material of a run: no run looks at the readers that are reported on.

Training readers teach; validation readers, seen at a later moment, guard the run and choose nothing else. The index
that rewards search holds what could be shown until the last training window ends, lists are chosen by all news until
then; recall is measured in the pool of the later moment, as everywhere (offline/evaluate/protocol.py).
"""

from collections.abc import Sequence
from pathlib import Path

from offline.evaluate.held_out import pool_of
from offline.simulate.impressions import FRESH_MS
from offline.training.click_model import News
from offline.training.example_set import load_articles, load_split, read_manifest
from offline.training.examples import Example, SplitName
from offline.training.expected_hit import ExpectedHit
from offline.training.judges import Judge
from offline.training.llm_judge import Endpoint, LlmJudge
from offline.training.material import Material, Rank, checked_material, make_news, make_rank
from offline.training.news_index import NewsIndex, TextVectors, check_covers
from offline.training.proposals import TrainingReader
from offline.training.rewards import EXPECTED_HIT, Reward, make_rewards
from schemas.article import Article
from schemas.clients.models import Embedder
from schemas.config import Api
from schemas.errors import UsageError

MOST_GUARDS = 200  # validation readers whose lists are written at each measure


def load_material(
    folder: Path,
    embedder: Embedder,
    api: Api,
    *,
    most_readers: int | None = None,
    beyond: Sequence[str] = (),
    judge: Endpoint | None = None,
) -> Material:
    """The first `most_readers` training examples with clicks; `beyond` names rewards that the paper does not have.

    Coverage and specificity are judged by the model at `judge`, or without one by embeddings.
    """
    manifest, articles = read_manifest(folder), load_articles(folder)
    training, validation = _with_clicks(folder, "training"), _with_clicks(folder, "validation")[:MOST_GUARDS]
    if not training or not validation:
        raise UsageError(
            f"{folder} has {len(training)} training and {len(validation)} validation examples with clicks: prepare a "
            "longer log, or one of more readers"
        )
    training = training[:most_readers]
    check_covers(articles, min(row.at_ms for row in training))
    index = NewsIndex(training_news(articles, training), TextVectors(embedder))
    news = _news_that_chooses(articles, training, index.texts)
    expected: dict[str, Reward] = {EXPECTED_HIT: ExpectedHit(news)} if EXPECTED_HIT in beyond else {}
    return checked_material(
        Material(
            training=[as_reader(row) for row in training],
            held_out=[as_reader(row) for row in validation],
            news=news,
            rank=held_out_rank(articles, validation, embedder, api),
            rewards=make_rewards(index, **_judges(judge), beyond=beyond) | expected,
            data_sha256=manifest.content_sha256,
            judge=judge.model if judge else "",
        )
    )


def _judges(endpoint: Endpoint | None) -> dict[str, Judge]:
    if endpoint is None:
        return {}
    return {"coverage": LlmJudge("coverage", endpoint), "specificity": LlmJudge("specificity", endpoint)}


def _news_that_chooses(articles: Sequence[Article], training: Sequence[Example], texts: TextVectors) -> News:
    """All news until the last window ends, with how much of it is alive and what of it readers were shown."""
    first_ms, last_ms = _windows(training)
    alive = pool_of(articles, first_ms, fresh_ms=FRESH_MS, until_ms=first_ms)
    shown_from_ms = min(article.published_at for article in training_news(articles, training))
    past = [article for article in articles if article.published_at <= last_ms]
    return make_news(past, texts, alive=len(alive), shown_from_ms=shown_from_ms)


def training_news(articles: Sequence[Article], training: Sequence[Example]) -> list[Article]:
    """What could be shown from the first training moment to the end of the last window; nothing later."""
    first_ms, last_ms = _windows(training)
    return pool_of(articles, first_ms, fresh_ms=FRESH_MS, until_ms=last_ms)


def held_out_rank(articles: Sequence[Article], rows: Sequence[Example], embedder: Embedder, api: Api) -> Rank:
    """Ranking in the pool of these examples' moment and window."""
    first_ms, last_ms = _windows(rows)
    return make_rank(pool_of(articles, first_ms, fresh_ms=FRESH_MS, until_ms=last_ms), embedder, api)


def _windows(rows: Sequence[Example]) -> tuple[int, int]:
    """The first moment of examples, and the end of their last window."""
    return min(row.at_ms for row in rows), max(row.until_ms for row in rows)


def as_reader(row: Example) -> TrainingReader:
    return TrainingReader(user_id=row.user_id, profile=row.profile, clicked=row.clicked)


def _with_clicks(folder: Path, split: SplitName) -> list[Example]:
    return [row for row in load_split(folder, split) if row.clicked]
