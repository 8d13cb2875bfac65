"""How far the loop is with what was sent to it, read from its metrics; and the live view of that."""

import msgspec
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from keenstream.demo.gauges import Gauges


class Sent(msgspec.Struct, frozen=True):
    articles: int
    events: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. Seconds of freshness are bucket bounds: upper estimates."""

    articles_done: int
    events_done: int
    events_folded: int
    events_dropped: int
    requests_sent: int
    signals_written: int
    lists_written: int
    fallbacks_written: int
    lag: int  # records that a worker has not committed yet
    signals_p50_seconds: float
    lists_p50_seconds: float
    dead_letters: int

    @classmethod
    def of(cls, gauges: Gauges, lag: int) -> "Progress":
        def count(name: str, **labels: str) -> int:
            return int(gauges.total(name, **labels))

        folded, dropped = count("keenstream_events_folded_total"), count("keenstream_events_dropped_total")
        letters = count("keenstream_dead_letters_total")
        freshness = "keenstream_freshness_seconds"
        return cls(
            articles_done=count("keenstream_articles_indexed_total") + count("keenstream_articles_skipped_total"),
            events_done=folded + dropped + count("keenstream_events_unchanged_total") + letters,
            events_folded=folded,
            events_dropped=dropped,
            requests_sent=count("keenstream_query_requests_total"),
            signals_written=count("keenstream_lists_total", source="signals", stage="signals"),
            lists_written=count("keenstream_lists_total", source="student"),
            fallbacks_written=count("keenstream_lists_total", source="signals", stage="interests"),
            lag=lag,
            signals_p50_seconds=gauges.quantile(freshness, 0.5, source="signals"),
            lists_p50_seconds=gauges.quantile(freshness, 0.5, source="student"),
            dead_letters=letters,
        )

    def caught_up(self, sent: Sent) -> bool:
        return self.articles_done >= sent.articles and self.events_done >= sent.events and self.lag == 0


def live_view(now: Progress, sent: Sent, seconds: float) -> RenderableType:
    """What has come through so far, a line for each step of the loop; reads well from 80 columns on."""
    rows = Table.grid(padding=(0, 2))
    for column in ("step", "bar", "count"):
        rows.add_column(column, justify="right" if column == "count" else "left", no_wrap=True)
    rows.add_column("remark")
    articles, events = min(now.articles_done, sent.articles), min(now.events_done, sent.events)
    rows.add_row("articles indexed", _bar(articles, sent.articles), f"{articles:,} / {sent.articles:,}", "")
    rows.add_row(
        "events folded",
        _bar(events, sent.events),
        f"{events:,} / {sent.events:,}",
        f"{now.events_dropped:,} cleaned away",
    )
    rows.add_row("signals stored", "", f"{now.signals_written:,}", _freshness(now.signals_p50_seconds))
    lists = now.lists_written + now.fallbacks_written
    rows.add_row("lists written", "", f"{lists:,}", _freshness(now.lists_p50_seconds))
    rows.add_row("lag", "", f"{now.lag:,}", "records to be committed")
    end = ""  # where no terminal is, nothing else ends the last line
    return Group(f"[bold]The loop at work[/], {seconds:.0f} s", rows, end)


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(1, total), completed=done, width=16)


def _freshness(p50_seconds: float) -> str:
    return f"median ≤ {p50_seconds:g} s from event" if p50_seconds else ""
