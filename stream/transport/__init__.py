"""Faust with batches: a run of consecutive records of a partition is one message.

`create_app` makes the app of a worker, `run_worker` runs it, `batches` is the loop of an agent, and `StateTable.write`
stores what the loop changed before its batch is acknowledged. As a plain transport it is `batch://host:port`.
"""

from stream.transport.app import App, WorkerSettings, create_app
from stream.transport.batch import Batch, batches
from stream.transport.driver import Transport
from stream.transport.record import Record, RunSchema
from stream.transport.table import StateTable
from stream.transport.topics import COMPACTED, TopicSpec, changelog, check_topics, create_topics
from stream.transport.worker import run_worker

__all__ = [
    "COMPACTED",
    "App",
    "Batch",
    "Record",
    "RunSchema",
    "StateTable",
    "TopicSpec",
    "Transport",
    "WorkerSettings",
    "batches",
    "changelog",
    "check_topics",
    "create_app",
    "create_topics",
    "run_worker",
]
