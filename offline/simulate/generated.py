"""The built-in news world: our own text, told from `world.toml`, and labelled as generated in every article."""

import hashlib
from collections.abc import Iterator
from itertools import accumulate
from random import Random

import msgspec

from offline.simulate.settings import SimulationSettings
from offline.simulate.vocabulary import CategoryWords, TopicWords, Vocabulary, load_vocabulary
from offline.simulate.world import Story, Topic, World
from schemas.article import Article

SOURCE = "generated"
LEAD_SHARE = 1 / 7  # of the span: news that is already there when the first reader comes
FOLLOW_UP_SHARE = 0.2  # stories that tell a recent fact in another phrasing
_RECENT_FACTS = 60
_ATTEMPTS = 40


class _Fact(msgspec.Struct, frozen=True):
    """Something that happened; a story is one telling of it."""

    topic: int
    phrasings: tuple[str, ...]
    entity: str
    other: str
    thing: str
    place: str
    number: int

    def told(self, frame: str) -> str:
        return frame.format(e=self.entity, f=self.other, t=self.thing, p=self.place, n=self.number)


def generated_world(settings: SimulationSettings) -> World:
    """As many stories as `settings` ask for, over all topics, some topics busier than others."""
    vocabulary = load_vocabulary()
    rng = Random(f"{settings.seed}:news")
    rows = [(category, topic) for category in vocabulary.categories for topic in category.topics]
    topics = [Topic(words.id, category.name, words.entities, words.everyday) for category, words in rows]
    newsroom = _Newsroom(vocabulary, rows, rng)
    times = _publication_times(settings, settings.articles, rng)
    return World(topics, (newsroom.story(time) for time in times))


def _publication_times(settings: SimulationSettings, count: int, rng: Random) -> Iterator[int]:
    earliest = max(0, settings.start_ms - int(settings.span_ms * LEAD_SHARE))
    return iter(sorted(rng.randrange(earliest, settings.end_ms) for _ in range(count)))


class _Newsroom:
    def __init__(self, vocabulary: Vocabulary, rows: list[tuple[CategoryWords, TopicWords]], rng: Random) -> None:
        self._vocabulary, self._rows, self._rng = vocabulary, rows, rng
        self._busy = list(accumulate(rng.uniform(0.4, 1.6) for _ in rows))
        self._recent: list[_Fact] = []
        self._titles: set[str] = set()

    def story(self, published_at: int) -> Story:
        fact, title = self._fresh_telling()
        summary = self._summary(fact, title)
        key = hashlib.blake2b(f"{title}\n{summary}\n{published_at}".encode(), digest_size=8).hexdigest()
        category = self._rows[fact.topic][0].name
        article = Article(
            article_id=f"gen-{key}",
            title=title,
            summary=summary,
            url=f"https://news.example/generated/{key}",
            source=SOURCE,
            category=category,
            published_at=published_at,
        )
        named = (name for name in self._rows[fact.topic][1].entities if name.lower() in f"{title} {summary}".lower())
        words = self._vocabulary.content_words(title)
        return Story(article, fact.topic, frozenset(named), words, self._rng.random() ** 6)

    def _fresh_telling(self) -> tuple[_Fact, str]:
        """A title not used before; after many attempts any, since a small vocabulary can run out."""
        for _ in range(_ATTEMPTS):
            fact = self._fact()
            title = _sentence(fact.told(self._rng.choice(fact.phrasings)))
            if title not in self._titles:
                break
        self._titles.add(title)
        self._recent = [*self._recent[1 - _RECENT_FACTS :], fact]
        return fact, title

    def _fact(self) -> _Fact:
        rng = self._rng
        if self._recent and rng.random() < FOLLOW_UP_SHARE:
            return rng.choice(self._recent)
        topic = rng.choices(range(len(self._rows)), cum_weights=self._busy)[0]
        words = self._rows[topic][1]
        entity, other = rng.sample(words.entities, 2)
        place = rng.choice(self._vocabulary.places)
        return _Fact(topic, rng.choice(words.facts), entity, other, rng.choice(words.things), place, rng.randint(2, 48))

    def _summary(self, fact: _Fact, title: str) -> str:
        rng, vocabulary = self._rng, self._vocabulary
        others = [telling for telling in map(fact.told, fact.phrasings) if _sentence(telling) != title]
        attribution = rng.choice(vocabulary.attributions).format(day=rng.choice(vocabulary.days))
        lead = f"{_sentence(rng.choice(others))}, {attribution}."
        contexts = self._rows[fact.topic][0].contexts
        if fact.entity.lower() not in f"{title} {lead}".lower():  # every story says who acts
            contexts = tuple(context for context in contexts if "{e}" in context)
        contexts = tuple(rng.sample(contexts, min(len(contexts), rng.choice((1, 1, 2)))))
        return " ".join([lead, *(_sentence(fact.told(context)) for context in contexts)])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
