"""The readers and articles of a folder of `keenstream simulate`, with the truth that decides what is clicked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from offline.simulate import ARTICLES_FILE, TRUTH_FILE
from offline.simulate.impressions import EXAMINATION_DECAY, IDLE, ON_TOPIC, WANTED
from offline.simulate.truth import ArticleTruth, InterestTruth, ReaderTruth, Truth
from schemas.article import Article
from schemas.codec import ARTICLES
from schemas.errors import InvalidRecord, UsageError


class LiveReader(msgspec.Struct, frozen=True):
    """With the interests that hold at the end of the written world."""

    user_id: str
    interests: tuple[InterestTruth, ...]

    def appeal(self, article: ArticleTruth | None) -> float:
        """The probability of a click when the article is looked at; of one that the truth does not know, IDLE."""
        best = IDLE
        for interest in self.interests if article else ():
            if article and interest.topic == article.topic:
                best = max(best, WANTED if set(interest.entities) & set(article.entities) else ON_TOPIC)
        return best


class LiveWorld(msgspec.Struct, frozen=True, kw_only=True):
    readers: Sequence[LiveReader]
    truths: Mapping[str, ArticleTruth]  # by article_id
    articles: Mapping[str, Article]
    by_topic: Mapping[str, Sequence[str]]  # article ids


def looked_at(place: int) -> float:
    """The probability that a reader looks at this place; 1 is the top (a position-based model)."""
    return float(place**-EXAMINATION_DECAY)


def make_world(
    articles: Sequence[Article], truths: Sequence[ArticleTruth], readers: Sequence[ReaderTruth]
) -> LiveWorld:
    by_topic: dict[str, list[str]] = {}
    for row in truths:
        by_topic.setdefault(row.topic, []).append(row.article_id)
    return LiveWorld(
        readers=[LiveReader(row.user_id, _latest(row.interests)) for row in readers],
        truths={row.article_id: row for row in truths},
        articles={row.article_id: row for row in articles},
        by_topic=by_topic,
    )


def read_world(folder: Path) -> LiveWorld:
    """UsageError when the folder is none of `keenstream simulate`."""
    try:
        articles = [ARTICLES.decode(line) for line in _lines(folder / ARTICLES_FILE)]
        decoder = msgspec.json.Decoder(Truth)
        truths = [decoder.decode(line) for line in _lines(folder / TRUTH_FILE)]
    except OSError as error:
        raise UsageError(
            f"cannot read {error.filename}: write the world first, with `keenstream simulate {folder}`"
        ) from error
    except (InvalidRecord, msgspec.DecodeError) as error:
        raise UsageError(f"{folder} is no folder of `keenstream simulate`: {error}") from error
    stories = [row for row in truths if isinstance(row, ArticleTruth)]
    return make_world(articles, stories, [row for row in truths if isinstance(row, ReaderTruth)])


def _latest(interests: Sequence[InterestTruth]) -> tuple[InterestTruth, ...]:
    end = max((interest.until_ms for interest in interests), default=0)
    return tuple(interest for interest in interests if interest.until_ms == end)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())
