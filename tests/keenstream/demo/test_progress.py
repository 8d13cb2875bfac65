import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from rich.console import Console

from keenstream.demo.gauges import read_gauges
from keenstream.demo.progress import Progress, Sent, live_view
from keenstream.demo.readers import choose_readers
from keenstream.stack.loop import metrics_variable
from schemas.event import Event, Kind

METRICS = """\
# TYPE keenstream_events_folded_total counter
keenstream_events_folded_total 7
# TYPE keenstream_events_dropped_total counter
keenstream_events_dropped_total{reason="login"} 2
keenstream_events_dropped_total{reason="console"} 1
# TYPE keenstream_lists_total counter
keenstream_lists_total{source="student",stage="interests"} 3
keenstream_lists_total{source="signals",stage="interests"} 1
keenstream_lists_total{source="signals",stage="signals"} 5
# TYPE keenstream_freshness_seconds histogram
keenstream_freshness_seconds_bucket{le="0.5",source="student"} 1
keenstream_freshness_seconds_bucket{le="2.0",source="student"} 3
keenstream_freshness_seconds_bucket{le="+Inf",source="student"} 3
keenstream_freshness_seconds_count{source="student"} 3
keenstream_freshness_seconds_sum{source="student"} 3
"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_metrics_are_summed_over_workers_and_labels(port: int) -> None:
    environment = {metrics_variable("profiles"): str(port), metrics_variable("interests"): str(port)}
    now = Progress.of(read_gauges(environment), lag=4)
    assert (now.events_folded, now.events_dropped, now.events_done) == (14, 6, 20)
    assert (now.lists_written, now.fallbacks_written, now.signals_written) == (6, 2, 10)
    assert (now.lists_p50_seconds, now.signals_p50_seconds) == (2.0, 0.0)


def test_a_worker_that_does_not_answer_counts_as_nothing() -> None:
    assert Progress.of(read_gauges({metrics_variable("profiles"): "1"}), lag=0).events_done == 0


def test_caught_up_means_everything_done_and_committed(port: int) -> None:
    now = Progress.of(read_gauges({metrics_variable("profiles"): str(port)}), lag=0)
    assert now.caught_up(Sent(articles=0, events=10))
    assert not now.caught_up(Sent(articles=0, events=11))
    assert not now.caught_up(Sent(articles=1, events=10))


@pytest.mark.parametrize("width", [80, 160])
def test_the_live_view_shows_the_figures_at_any_usual_width(port: int, width: int) -> None:
    now = Progress.of(read_gauges({metrics_variable("profiles"): str(port)}), lag=1234)
    with open(os.devnull, "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        console.print(live_view(now, Sent(articles=5, events=20), seconds=3.2))
    lines = console.export_text().splitlines()
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        "articles indexed", "events folded", "signals stored", "lists written", "lag",
    ]  # fmt: skip
    assert "0 / 5" in lines[1]
    assert "10 / 20" in lines[2]
    assert "3 cleaned away" in lines[2]
    assert "median ≤ 2 s from event" in lines[4]
    assert "1,234" in lines[5]


def event(user: str, number: int, kind: Kind) -> Event:
    return Event(event_id=str(number), user_id=user, kind=kind, text="text", occurred_at=number)


def test_two_warm_readers_and_a_cold_one_are_shown() -> None:
    kinds: list[Kind] = ["page", "search", "click"]
    warm = [event(f"warm-{user}", number, kinds[number % 3]) for user in range(3) for number in range(8)]
    cold = [event("cold", number, "page") for number in range(2)]
    one_sided = [event("only-pages", number, "page") for number in range(8)]
    assert choose_readers([*one_sided, *warm, *cold]) == ["warm-0", "warm-1", "cold"]
