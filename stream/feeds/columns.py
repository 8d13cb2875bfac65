"""Which column of a table, or key of a JSON object, stands for which field of an article."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from schemas.errors import UsageError
from stream.feeds.rows import Fields

_USUAL: dict[str, tuple[str, ...]] = {
    "title": ("title", "headline", "name"),
    "url": ("url", "link", "href", "uri"),
    "published_at": ("published_at", "published", "publish_date", "pub_date", "pubdate", "publication_date", "date",
                     "datetime", "timestamp", "created_at", "time"),
    "summary": ("summary", "description", "short_description", "abstract", "excerpt", "content", "text"),
    "article_id": ("article_id",),
    "guid": ("guid", "id"),
    "source": ("source", "publisher", "publication", "site"),
    "category": ("category", "section", "topic"),
    "language": ("language", "lang", "locale"),
    "expires_at": ("expires_at",),
}  # fmt: skip


class Columns(msgspec.Struct, frozen=True):
    """(field, column) of those that the source has."""

    chosen: tuple[tuple[str, str], ...]

    @property
    def names(self) -> list[str]:
        return sorted({column for _, column in self.chosen})

    def fields(self, cell: Callable[[str], Any]) -> Fields:
        """An article of a row, of which `cell` gives the value of a column."""
        values = {field: _value(field, cell(column)) for field, column in self.chosen}
        return Fields(**values)


def parse_mapping(options: Sequence[str]) -> dict[str, str]:
    """Of `title=headline`, ...: the column by field. Raises UsageError."""
    mapping: dict[str, str] = {}
    for option in options:
        field, _, column = (part.strip() for part in option.partition("="))
        if field not in _USUAL or not column:
            raise UsageError(f"--map {option}: write FIELD=COLUMN with one of the fields {', '.join(_USUAL)}")
        if field in mapping:
            raise UsageError(f"--map {field} is given twice")
        mapping[field] = column
    return mapping


def choose_columns(
    available: Iterable[str], mapping: Mapping[str, str], *, source: str, undated: bool = False
) -> Columns:
    """Those of `mapping`, and by their usual names those that it leaves out.

    Raises UsageError naming `source` and what it lacks: a mapped column, a title, a url or id, or (unless `undated`) a
    date.
    """
    names = list(available)
    for field, column in mapping.items():
        if column not in names:
            raise UsageError(f"{source} has no column {column} (--map {field}={column}); it has: {_listed(names)}")
    by_name = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    free = {key: name for key, name in by_name.items() if name not in mapping.values()}
    found = dict(mapping)
    for field, usual in _USUAL.items():
        present = [free[key] for key in usual if key in free]
        if field not in found and present:
            found[field] = present[0]
    _check_complete(found, names, source, undated)
    return Columns(tuple((field, found[field]) for field in _USUAL if field in found))


def _check_complete(found: Mapping[str, str], names: Sequence[str], source: str, undated: bool) -> None:
    lacking = [field for field in ("title", *(() if undated else ("published_at",))) if field not in found]
    if "url" not in found and "article_id" not in found:
        lacking.append("url")
    if lacking:
        hint = " --undated arrival does without dates." if lacking == ["published_at"] else ""
        raise UsageError(
            f"{source} has no column for {', '.join(lacking)}; it has: {_listed(names)}. "
            f"Say which one it is with --map {lacking[0]}=COLUMN.{hint}"
        )


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _value(field: str, value: Any) -> Any:
    if field in ("published_at", "expires_at"):
        return value
    return "" if value is None else str(value).strip()
