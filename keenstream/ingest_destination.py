"""Where `keenstream ingest` sends to: the topics of the configured Kafka, or nowhere in a dry run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from schemas.codecs import JSON_CODECS, open_codecs
from schemas.config import Config
from schemas.names import Topic
from stream.feeds.ingestion import Destination, Nowhere
from stream.kafka_access import Broker, check_credentials, failure, kafka_python_options
from stream.producer import KafkaProducer

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def destination(config: Config, *, dry_run: bool = False, events: bool = False) -> AsyncIterator[Destination]:
    """Raises Unavailable or UsageError when Kafka does not take anything from us."""
    if dry_run:
        yield Destination(producer=Nowhere(), codecs=JSON_CODECS, cluster="")
        return
    codecs = open_codecs(config, writes=(Topic.ARTICLES, *((Topic.USER_EVENTS,) if events else ())))
    async with KafkaProducer(config.kafka) as producer:
        cluster = await asyncio.to_thread(cluster_id, config.kafka)
        yield Destination(producer=producer, codecs=codecs, cluster=cluster)


def cluster_id(broker: Broker) -> str:
    """What tells apart two clusters, also at the same address: what one of them has, the other lacks."""
    check_credentials(broker)
    try:
        client = KafkaAdminClient(**kafka_python_options(broker), bootstrap_timeout_ms=int(CONNECT_SECONDS * 1000))
        with closing(client):
            return str(client.describe_cluster()["cluster_id"])
    except (KafkaError, OSError) as error:
        raise failure(broker, error) from error
