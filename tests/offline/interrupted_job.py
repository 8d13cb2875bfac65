"""A Beam job whose one step never ends, and keeps a KeyboardInterrupt to itself: a program that is sent Ctrl-C."""

import os
import threading

import apache_beam as beam
import typer

from offline.runners import RunnerSettings, run_beam

BEGUN, ENDED = "begun", "the wait ended"


def never_ending(element: int) -> None:
    typer.echo(BEGUN)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        threading.Event().wait()


if __name__ == "__main__":
    try:
        run_beam(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(never_ending), RunnerSettings())
    except KeyboardInterrupt:
        typer.echo(ENDED)
        os._exit(0)
