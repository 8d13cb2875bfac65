"""Some of the news as a search of lists sees it, at depths that stand for those of the news alive at one moment."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from offline.training.click_model import News, Places
from offline.training.news_index import Vectors
from offline.training.proposals import Depths, TrainingReader, votes_of
from schemas.article import embedded_text
from schemas.profile import seen_articles


class SearchedNews(msgspec.Struct, frozen=True):
    """Articles in the order of `places`."""

    ids: Sequence[str]
    places: Places  # in the news
    vectors: Vectors  # [articles, d]
    texts: Sequence[str]
    embed: Callable[[Sequence[str]], Vectors]
    depths: Depths

    def votes(self, queries: Sequence[str], reader: TrainingReader) -> Vectors:
        """[queries, articles]; what the reader has clicked is out."""
        seen = seen_articles(reader.profile)
        unseen = np.array([article not in seen for article in self.ids])
        return np.asarray(votes_of(self.embed(queries) @ self.vectors.T, self.depths.hits) * unseen, np.float32)


def searched(news: News, places: Places | None = None) -> SearchedNews:
    """The articles at `places`; all of them for None."""
    places = np.arange(len(news.articles)) if places is None else places
    return SearchedNews(
        ids=[news.articles[place].article_id for place in places],
        places=places,
        vectors=news.vectors[places],
        texts=[embedded_text(news.articles[place]) for place in places],
        embed=news.embed,
        depths=Depths().in_more_news(len(places) / (news.alive or len(news.articles))),
    )
