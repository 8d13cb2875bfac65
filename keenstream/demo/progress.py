"""How far the loop is with what was sent to it, read from its metrics; and the live view of that."""

import msgspec
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


def live_table(now: Progress, sent: Sent, seconds: float) -> Table:
    """The live view."""
    table = Table(title=f"keenstream, {seconds:.0f} s", title_justify="left")
    for column in ("articles indexed", "events folded", "cleaned away", "signals stored", "lists written", "lag"):
        table.add_column(column, justify="right")
    table.add_column("freshness p50: signals, lists", justify="right")
    table.add_row(
        f"{now.articles_done:,} / {sent.articles:,}",
        f"{now.events_folded:,} / {sent.events:,}",
        f"{now.events_dropped:,}",
        f"{now.signals_written:,}",
        f"{now.lists_written + now.fallbacks_written:,}",
        f"{now.lag:,}",
        f"≤ {now.signals_p50_seconds:g} s, ≤ {now.lists_p50_seconds:g} s",
    )
    return table
