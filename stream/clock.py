"""The wall clock of the workers and the API; below their entry points time is an argument."""

import time


def now_ms() -> int:
    """UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000
