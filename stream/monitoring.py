"""Every metric of the workers and the API, with its kind, unit and meaning, in one place.

No label holds a reader's id or text. Served by `serve_metrics` on 127.0.0.1 in the Prometheus text format.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 300)

# profiles
EVENTS_FOLDED: Final = Counter("keenstream_events_folded_total", "Events that changed a profile")
EVENTS_UNCHANGED: Final = Counter(
    "keenstream_events_unchanged_total", "Events that changed nothing: duplicates, old ones"
)
EVENTS_DROPPED: Final = Counter("keenstream_events_dropped_total", "Events that cleaning dropped", ["reason"])
PROFILES_WRITTEN: Final = Counter("keenstream_profiles_written_total", "Rows written to the profile table")
READERS_ERASED: Final = Counter("keenstream_readers_erased_total", "Erasures applied to the profile table")
REQUESTS_SENT: Final = Counter("keenstream_query_requests_total", "Query requests sent")
REFRESHES_WAITING: Final = Gauge("keenstream_refreshes_waiting", "Readers with new signals whose list is not due yet")

# all workers
DEAD_LETTERS: Final = Counter("keenstream_dead_letters_total", "Records sent to dead letters", ["stage"])
BATCH_SECONDS: Final = Histogram("keenstream_batch_seconds", "Time to process one batch", ["stage"], buckets=_SECONDS)
RETRIES: Final = Counter("keenstream_retries_total", "Batches tried again because a part was away", ["stage"])

# signals and interests
LISTS_WRITTEN: Final = Counter("keenstream_lists_total", "Query lists written", ["stage", "source"])
LISTS_UNUSABLE: Final = Counter("keenstream_lists_unusable_total", "Unusable answers of the student", ["attempt"])
TEXTS_JUDGED: Final = Counter(
    "keenstream_texts_judged_total", "Texts of pages and searches by what the cleaner found", ["stage", "outcome"]
)
CLEANER_FALLBACKS: Final = Counter(
    "keenstream_cleaner_fallbacks_total", "Batches cleaned by rules alone: the cleaner did not answer", ["stage"]
)
QUERIES_ERASED: Final = Counter("keenstream_queries_erased_total", "Erased readers whose queries are gone", ["stage"])
REQUESTS_SKIPPED: Final = Counter("keenstream_requests_skipped_total", "Requests not answered", ["stage", "why"])
FRESHNESS_SECONDS: Final = Histogram(
    "keenstream_freshness_seconds",
    "From the broker's time of the newest event to its rows stored",
    ["source"],
    buckets=_SECONDS,
)
BREAKER_OPEN: Final = Gauge("keenstream_breaker_open", "1 while the circuit breaker is open", ["part"])

# articles
ARTICLES_INDEXED: Final = Counter("keenstream_articles_indexed_total", "Articles embedded and stored")
ARTICLES_SKIPPED: Final = Counter("keenstream_articles_skipped_total", "Articles not stored", ["why"])
ARTICLES_SWEPT: Final = Counter("keenstream_articles_swept_total", "Expired articles deleted")

# archive
ARCHIVE_ROWS: Final = Counter("keenstream_archive_rows_total", "Rows written to files", ["topic"])
ARCHIVE_FILES: Final = Counter("keenstream_archive_files_total", "Files written", ["topic"])
ARCHIVE_LEFT_OUT: Final = Counter("keenstream_archive_left_out_total", "Records in no file", ["topic", "why"])
ARCHIVE_IN_HAND: Final = Gauge("keenstream_archive_in_hand", "Records read that are in no file yet")
ARCHIVE_WRITE_SECONDS: Final = Histogram(
    "keenstream_archive_write_seconds", "Time to write one range", ["topic"], buckets=_SECONDS
)

# matches
ARTICLES_MATCHED: Final = Counter("keenstream_articles_matched_total", "New articles searched against stored queries")
MATCH_CANDIDATES: Final = Counter("keenstream_match_candidates_total", "Readers found for new articles")
MATCHES: Final = Counter("keenstream_matches_total", "Match candidates by what became of them", ["outcome"])

# API
API_SECONDS: Final = Histogram("keenstream_api_seconds", "Time to answer", ["route", "status"], buckets=_SECONDS)
API_REQUESTS: Final = Counter("keenstream_api_requests_total", "Requests by name of the key", ["key", "status"])
API_REFUSED: Final = Counter("keenstream_api_refused_total", "Requests beyond a limit", ["limit"])
API_EVENTS: Final = Counter("keenstream_api_events_total", "Events posted", ["status"])
API_OUTCOMES: Final = Counter("keenstream_api_outcomes_total", "Outcomes posted", ["status"])
OUTCOMES_OF_UNKNOWN_REQUESTS: Final = Counter(
    "keenstream_api_outcomes_of_unknown_requests_total", "Outcomes of requests that this process did not answer"
)
EXPOSURES_SENT: Final = Counter("keenstream_exposures_total", "Exposures that the broker has")
EXPOSURES_DROPPED: Final = Counter("keenstream_exposures_dropped_total", "Exposures lost while Kafka was away")
EXPOSURES_WAITING: Final = Gauge("keenstream_exposures_waiting", "Exposures that wait to be sent")
API_CANDIDATES: Final = Counter("keenstream_api_candidate_lists_total", "Candidate lists served", ["source", "stale"])
API_CACHE: Final = Counter("keenstream_api_query_cache_total", "Look-ups of a reader's query vectors", ["outcome"])
FRESH_STREAMS: Final = Gauge("keenstream_api_fresh_streams", "Open streams of fresh matches")
FRESH_SENT: Final = Counter("keenstream_api_fresh_sent_total", "Matches sent on open streams")
VIEW_LAG: Final = Gauge("keenstream_api_view_lag", "Records that the API's local view has yet to read")


def serve_metrics(port: int) -> None:
    """Serve /metrics on 127.0.0.1:`port` from a daemon thread; 0 = not at all."""
    if port:
        start_http_server(port, addr="127.0.0.1")
