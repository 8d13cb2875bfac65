"""The Faust app of a worker, with the settings that keep it from losing or repeating work."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import faust
import msgspec
from mode.supervisors import CrashingSupervisor

from stream.kafka_access import Broker, addresses, faust_credentials
from stream.transport.driver import Transport
from stream.transport.record import RunSchema
from stream.transport.table import StateTable

RUNS_IN_QUEUE = 8  # of a topic, before its partitions are no longer fetched


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between installations; everything else is fixed in `create_app`."""

    session_timeout_seconds: float = 45.0
    rebalance_timeout_seconds: float = 60.0
    commit_interval_seconds: float = 1.0
    run_records: int = 2_000  # at most in one fetch, so in one run
    send_timeout_seconds: float = 120.0
    recovery_seconds: float = 300.0  # a worker that has not restored its state by then ends with exit code 1
    stall_seconds: float = 300.0  # a worker whose commits stand still this long while events wait ends likewise
    shutdown_seconds: float = 30.0


class App(faust.App):  # type: ignore[misc]  # faust is untyped here
    """A Faust app on the batch transport."""

    worker_settings: WorkerSettings

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def _on_rebalance_when_stopped(self) -> None:
        """Faust closes the client here, from the wrong thread: commits would never end. `ConsumerThread` waits."""

    def _create_directories(self) -> None:
        self.conf.datadir.mkdir(parents=True, exist_ok=True)
        super()._create_directories()

    def run_topic(self, *names: str) -> Any:
        """Topics whose consecutive records arrive as one message, a list of `Record`."""
        return faust.Topic(self, topics=list(names), schema=RunSchema(), maxsize=RUNS_IN_QUEUE)

    def state_table(self, name: str, partitions: int) -> StateTable:
        """Durable rows of bytes; the changelog is `<app>-<name>-changelog`."""
        table: StateTable = self.Table(name, partitions=partitions)
        return table

    def run_agent(self, *topics: str) -> Callable[[Callable[[Any], Awaitable[None]]], Any]:
        """An agent over the runs of topics: one actor, and an exception that leaves it ends the worker."""
        agent: Callable[[Callable[[Any], Awaitable[None]]], Any] = self.agent(self.run_topic(*topics), concurrency=1)
        return agent


def create_app(app_id: str, broker: Broker, *, data_folder: Path, settings: WorkerSettings | None = None) -> App:
    """An app whose group is `app_id`."""
    settings = settings or WorkerSettings()
    app = App(
        app_id,
        broker=[f"batch://{address}" for address in addresses(broker)],
        broker_credentials=faust_credentials(broker),
        datadir=str(data_folder),
        store="memory://",
        Table=StateTable,
        agent_supervisor=CrashingSupervisor,
        autodiscover=False,
        # the web server would show tables, that is readers' profiles, on every interface
        web_enabled=False,
        web_in_thread=False,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=settings.run_records,
        broker_commit_interval=settings.commit_interval_seconds,
        broker_session_timeout=settings.session_timeout_seconds,
        # a member learns of a rebalance by its next heartbeat
        broker_heartbeat_interval=min(3.0, settings.session_timeout_seconds / 10),
        broker_request_timeout=max(90.0, settings.session_timeout_seconds),
        broker_rebalance_timeout=settings.rebalance_timeout_seconds,
        # two workers must not fold the same partition: the one that gives it up finishes what it has in hand
        stream_wait_empty=True,
        producer_acks=-1,
        producer_max_batch_size=512 * 1024,
        producer_request_timeout=settings.send_timeout_seconds,
        table_standby_replicas=0,  # a restore reads tens of thousands of rows a second: a second copy is not worth it
        # the admin step makes topics with the right counts and policies: one made by a worker would hide a mistake
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    app.worker_settings = settings
    return app
