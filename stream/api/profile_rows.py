"""Raw rows by key, on disk with a bounded cache in memory: SQLite without its durability.

The topic is the durable copy; this one is read anew at each start. In memory a million profiles of 5 kB would take
more than 5 GB; here they take that much disk, and 64 MiB of memory.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

CACHE_KIB = 65_536


class ProfileRows:
    def __init__(self, file: Path | None = None) -> None:
        """Rows in `file`, which is emptied; without one in a private temporary file."""
        if file is not None:
            file.unlink(missing_ok=True)
        # one thread uses it, but not always the one that made it (tests, uvicorn)
        self._database = sqlite3.connect(file or "", isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            "secure_delete=ON",
            f"cache_size=-{CACHE_KIB}",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, key: bytes) -> bytes | None:
        found = self._database.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        return None if found is None else bytes(found[0])

    def apply(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Write in order; None removes."""
        latest = dict(rows)
        written = [(key, value) for key, value in latest.items() if value is not None]
        removed = [(key,) for key, value in latest.items() if value is None]
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", written)
        self._database.executemany("DELETE FROM rows WHERE key = ?", removed)
        self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()
