"""From what a source gives to messages that the broker has: counted, without repeats, in batches."""

from collections.abc import Sequence

import msgspec

from schemas.article import Article
from schemas.codecs import JSON_CODECS, Codecs
from schemas.event import Event
from schemas.names import Topic
from stream.feeds.rows import BadLine, Left, Outcome, Taken
from stream.feeds.rules import fingerprint_of
from stream.producer import Outgoing, Producer

BATCH = 1_000
MAX_SEEN = 20_000  # records of one source that are known to be sent; the oldest are forgotten
SHOWN_BAD_LINES = 10
SAMPLES = 5


class Seen(msgspec.Struct, frozen=True):
    """A record as it was sent last."""

    fingerprint: str
    first_ms: int  # when it arrived first: an article's date, where it has none of its own


class Tally(msgspec.Struct):
    """What became of a source."""

    sent: int = 0
    bad: int = 0
    unchanged: int = 0  # known already, or a second time in the source
    other_language: int = 0
    no_news: int = 0  # entries of a sitemap that are not of news
    without_consent: int = 0  # events that may not be stored
    redated: int = 0  # sent with the time of their arrival: without a date, of before 1990, or of the future
    mended: int = 0  # sent although not in the encoding that they claim, or in UTF-8
    first_bad: list[str] = msgspec.field(default_factory=list)

    def note(self, outcome: Left | BadLine) -> None:
        if isinstance(outcome, BadLine):
            self.bad += 1
            if len(self.first_bad) < SHOWN_BAD_LINES:
                self.first_bad.append(f"{outcome.number}: {outcome.reason}")
        elif outcome.why == "language":
            self.other_language += 1
        else:
            self.no_news += 1


class Sender:
    """Sends records of one source. `seen` is brought up to date with what the broker acknowledged, and nothing else."""

    def __init__(
        self,
        producer: Producer,
        seen: dict[str, Seen],
        *,
        now_ms: int,
        expires_at_ms: int | None = None,
        codecs: Codecs = JSON_CODECS,
    ) -> None:
        self._producer = producer
        self._seen = seen
        self._now_ms = now_ms
        self._expires_at_ms = expires_at_ms
        self._codecs = codecs
        self._pending: dict[str, tuple[Seen, Taken]] = {}
        self.tally = Tally()
        self.samples: list[Article] = []  # the first ones that were sent

    @property
    def full(self) -> bool:
        return len(self._pending) >= BATCH

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Put what is new or changed into the next batch, and count the rest. Of one id the last one counts."""
        for outcome in outcomes:
            if isinstance(outcome, Taken):
                self._take(outcome)
            else:
                self.tally.note(outcome)

    async def flush(self) -> None:
        """Returns when the broker has all; raises as `Producer.send` does, with `seen` as before."""
        batch, self._pending = self._pending, {}
        await self._producer.send([self._outgoing(taken.record) for _, taken in batch.values()])
        for key, (seen, taken) in batch.items():
            remember(self._seen, key, seen)
            self.tally.sent += 1
            self.tally.redated += taken.redated
            self.tally.mended += taken.mended
        articles = [taken.record for _, taken in batch.values() if isinstance(taken.record, Article)]
        self.samples += articles[: SAMPLES - len(self.samples)]

    def _take(self, taken: Taken) -> None:
        record = taken.record
        if isinstance(record, Event) and not record.consent:
            self.tally.without_consent += 1
            return
        key = record.article_id if isinstance(record, Article) else record.event_id
        fingerprint = fingerprint_of(taken)
        known = self._pending[key][0] if key in self._pending else self._seen.get(key)
        if known is not None and known.fingerprint == fingerprint:
            self.tally.unchanged += 1
            return
        first_ms = known.first_ms if known else self._now_ms
        if taken.redated and isinstance(record, Article):
            taken = msgspec.structs.replace(taken, record=msgspec.structs.replace(record, published_at=first_ms))
        self._pending[key] = Seen(fingerprint, first_ms), taken

    def _outgoing(self, record: Article | Event) -> Outgoing:
        if isinstance(record, Event):
            return Outgoing(Topic.USER_EVENTS, record.user_id.encode(), self._codecs.events.encode(record))
        if self._expires_at_ms is not None:
            record = msgspec.structs.replace(record, expires_at=self._expires_at_ms)
        return Outgoing(Topic.ARTICLES, record.article_id.encode(), self._codecs.articles.encode(record))


def remember(seen: dict[str, Seen], key: str, entry: Seen) -> None:
    """As the newest of at most MAX_SEEN."""
    seen.pop(key, None)
    seen[key] = entry
    while len(seen) > MAX_SEEN:
        del seen[next(iter(seen))]
