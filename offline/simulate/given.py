"""A news world made of given articles: a real feed, without labels of topics.

Topics are found by words alone, fast and the same on every machine. In each category the salient word that most of the
articles without a topic share becomes one, if a second word keeps it company often enough (`tweet` or `look` go with
anything), until none is shared by enough; the words that go with it are its entities. Publication times are spread
evenly over the simulated span in the articles' own order.

The gap: no page or search of real readers comes with a feed, so everyday phrases are borrowed from the built-in
vocabulary: a topic takes six of those declared for categories like its own (`like` in world.toml; all when none is),
chosen by a hash of its name, without any that shares a word with its articles. Which phrases go with which news is thus
fixed, repeatable, and known to no embedding: it can only be learnt from readers' clicks.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from offline.simulate.generated import LEAD_SHARE
from offline.simulate.settings import SimulationSettings
from offline.simulate.vocabulary import Vocabulary, load_vocabulary
from offline.simulate.world import Story, Topic, World
from schemas.article import Article
from schemas.errors import UsageError

TOPIC_ARTICLES = 6  # a word shared by fewer articles of a category makes no topic
COMMON_SHARE = 0.03  # a word in more articles than this tells nothing
COMMON_AT_LEAST = 30  # ... but in a small feed every topic's word is in a large share of it
COHERENCE = 0.3  # of a topic's articles share a second word
TOPIC_ENTITIES = 5
TOPIC_PHRASES = 6
NO_CATEGORY = "news"


class _Row(msgspec.Struct, frozen=True):
    article: Article
    title_words: frozenset[str]
    words: frozenset[str]  # of title and summary

    def company(self, word: str, rarity: dict[str, float]) -> Iterable[str]:
        """The other telling words."""
        return (other for other in self.words if other in rarity and other != word)


def given_world(settings: SimulationSettings, articles: Sequence[Article]) -> World:
    """A world of exactly these articles; raises UsageError when there are none."""
    if not articles:
        raise UsageError(
            "no articles given: pass a feed with at least one, or leave it out for the built-in news world"
        )
    vocabulary = load_vocabulary()
    ordered = sorted(articles, key=lambda article: (article.published_at, article.article_id))
    rows = [_row(article, vocabulary) for article in _spread(ordered, settings)]
    rarity = _rarity(rows)
    topics: list[Topic] = []
    stories: list[Story] = []
    rng = Random(f"{settings.seed}:given")
    for category, members in sorted(_by_category(rows).items()):
        for word, cluster in _clusters(members, rarity, len(rows)):
            topic = _topic(category, word, cluster, rarity, vocabulary)
            stories += (_story(row, len(topics), topic, vocabulary, rng) for row in cluster)
            topics.append(topic)
    return World(topics, stories)


def _spread(articles: Sequence[Article], settings: SimulationSettings) -> Iterable[Article]:
    earliest = max(0, settings.start_ms - int(settings.span_ms * LEAD_SHARE))
    step = (settings.end_ms - earliest) / len(articles)
    for number, article in enumerate(articles):
        yield msgspec.structs.replace(article, published_at=earliest + int(number * step), expires_at=None)


def _row(article: Article, vocabulary: Vocabulary) -> _Row:
    title = vocabulary.word_set(article.title)
    return _Row(article, title, title | vocabulary.word_set(article.summary))


def _rarity(rows: Sequence[_Row]) -> dict[str, float]:
    """Inverse document frequency of each word; words in too many articles are left out."""
    counts = Counter(word for row in rows for word in row.words)
    limit = max(COMMON_AT_LEAST, COMMON_SHARE * len(rows))
    return {word: math.log(len(rows) / count) + 1 for word, count in counts.items() if count <= limit}


def _by_category(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    found: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row.article.category or NO_CATEGORY].append(row)
    return found


def _clusters(rows: list[_Row], rarity: dict[str, float], feed_size: int) -> list[tuple[str, list[_Row]]]:
    """Words with their articles, by falling number of them; last, under the empty word, what shares none."""
    holders: defaultdict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        for word in row.title_words:
            if word in rarity:
                holders[word].add(number)
    fewest = min(TOPIC_ARTICLES, max(2, feed_size // 10))
    free, found = set(range(len(rows))), list[tuple[str, list[_Row]]]()
    queue = sorted(holders, key=lambda word: (-len(holders[word]) * rarity[word], word))
    for word in queue:
        members = [rows[number] for number in sorted(holders[word] & free)]
        if len(members) >= fewest and _coherent(word, members, rarity):
            found.append((word, members))
            free -= holders[word]
    return [*found, ("", [rows[number] for number in sorted(free)])] if free else found


def _coherent(word: str, members: Sequence[_Row], rarity: dict[str, float]) -> bool:
    company = Counter(other for row in members for other in row.company(word, rarity))
    return max(company.values(), default=0) >= max(2, COHERENCE * len(members))


def _topic(
    category: str, word: str, cluster: Sequence[_Row], rarity: dict[str, float], vocabulary: Vocabulary
) -> Topic:
    weights: Counter[str] = Counter()
    for row in cluster:
        weights.update(row.company(word, rarity))
    ranked = sorted(weights, key=lambda other: (-weights[other] * rarity[other], other))
    topic_id = f"{category}/{word}".lower()
    news = frozenset(other for row in cluster for other in row.words)
    return Topic(
        topic_id=topic_id,
        category=category,
        entities=tuple(ranked[:TOPIC_ENTITIES]) or (word or category,),
        everyday=_everyday(topic_id, category, news, vocabulary),
        followed=bool(word),
    )


def _everyday(topic_id: str, category: str, news: frozenset[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    alike = [words for words in vocabulary.categories if any(part in category.lower() for part in words.like)]
    for categories in (alike, vocabulary.categories):
        phrases = {phrase for words in categories for topic in words.topics for phrase in topic.everyday}
        apart = [phrase for phrase in phrases if not vocabulary.phrase_words[phrase] & news]
        if len(apart) >= TOPIC_PHRASES:
            return tuple(sorted(apart, key=lambda phrase: (_hash(topic_id, phrase), phrase))[:TOPIC_PHRASES])
    return tuple(sorted(phrases))[:TOPIC_PHRASES]  # a topic whose news uses nearly every word there is


def _hash(topic_id: str, phrase: str) -> bytes:
    return hashlib.blake2b(f"{topic_id}\n{phrase}".encode(), digest_size=8).digest()


def _story(row: _Row, number: int, topic: Topic, vocabulary: Vocabulary, rng: Random) -> Story:
    named = row.words & frozenset(topic.entities)
    return Story(row.article, number, named, vocabulary.content_words(row.article.title), rng.random() ** 6)
