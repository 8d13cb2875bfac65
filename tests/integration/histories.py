"""Event histories of many readers, and the plain offline fold that the stream must equal."""

import random
from collections.abc import Iterable, Sequence

from schemas.cleaning import clean_event
from schemas.codec import EVENTS
from schemas.config import Config
from schemas.event import KINDS, Event
from schemas.names import Topic
from schemas.profile import UserProfile, encode_profile, fold_event
from stream.kafka_access import Broker
from stream.producer import KafkaProducer, Outgoing
from stream.profiles.record import decode_record
from stream.topic_reader import read_topic

START_MS = 1_760_000_000_000
HOUR_MS = 3_600_000
TOPICS = ["heat pump", "roses", "marathon", "sourdough", "electric car", "tax return", "jazz", "solar panel"]
WORDS = ["review", "prices", "for beginners", "near me", "explained", "in winter", "news", "repair", "facebook login"]


def history(events: int, readers: int, seed: int, duplicates: float = 0.1) -> list[Event]:
    """Events in order of delivery: shuffled within an hour, with duplicates."""
    rng = random.Random(seed)
    rows = [_event(number, readers, rng) for number in range(events)]
    rows += rng.sample(rows, int(events * duplicates))
    return sorted(rows, key=lambda event: event.occurred_at + rng.uniform(0, HOUR_MS))


def _event(number: int, readers: int, rng: random.Random) -> Event:
    return Event(
        event_id=f"e{number}",
        user_id=f"reader-{rng.randrange(readers):05d}",
        kind=rng.choice(KINDS),
        text=f"{rng.choice(TOPICS)} {rng.choice(WORDS)} {number % 97}",
        occurred_at=START_MS + rng.randrange(24 * HOUR_MS),
        url=f"https://site.example/{number}?id={number}&utm_source=mail",
    )


def offline_fold(events: Iterable[Event], config: Config) -> dict[str, bytes]:
    """The canonical bytes of every reader's profile."""
    profiles: dict[str, UserProfile] = {}
    for event in events:
        cleaned = clean_event(event, languages=config.profiles.languages)
        if isinstance(cleaned, Event):
            before = profiles.get(event.user_id) or UserProfile(event.user_id)
            profiles[event.user_id] = fold_event(before, cleaned, signals_per_domain=config.profiles.signals_per_domain)
    return {user: encode_profile(profile) for user, profile in profiles.items()}


def stored_profiles(broker: Broker) -> dict[str, bytes]:
    """The canonical bytes of every reader's profile as the broker has them."""
    rows = {record.key: record.value for record in read_topic(broker, Topic.PROFILES_CHANGELOG)}
    return {key.decode(): encode_profile(decode_record(value).profile) for key, value in rows.items()}


async def send_events(broker: Broker, events: Sequence[Event], batch: int = 2_000) -> None:
    async with KafkaProducer(broker) as producer:
        for first in range(0, len(events), batch):
            await producer.send(
                [
                    Outgoing(Topic.USER_EVENTS, e.user_id.encode(), EVENTS.encode(e))
                    for e in events[first : first + batch]
                ]
            )
