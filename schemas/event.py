"""What a reader did: a page browsed, a search made, a news article clicked."""

from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from schemas.errors import InvalidRecord

Kind = Literal["page", "search", "click"]
KINDS: tuple[Kind, ...] = ("page", "search", "click")
MAX_TEXT_CHARACTERS = 2_000
MILLISECONDS_BELOW = 10**14  # the year 5138; times in microseconds are beyond it

# No control characters: ids become keys, file names and log-free metrics; U+0000–U+001F and U+007F would break each.
# (?!\n): Python's $ also matches in front of a line break at the end.
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+(?!\n)$")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=MILLISECONDS_BELOW)]  # since 1970, UTC


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signal of one reader. `text` is the page's title, the search or the headline; times are UTC milliseconds."""

    event_id: Identifier
    user_id: Identifier
    kind: Kind
    text: Text
    occurred_at: Milliseconds
    url: Annotated[str, msgspec.Meta(max_length=2_048)] | None = None
    article_id: Identifier | None = None
    locale: Annotated[str, msgspec.Meta(max_length=35)] | None = None
    consent: bool = True


class _Dated(Protocol):
    @property
    def occurred_at(self) -> int: ...


Dated = TypeVar("Dated", bound=_Dated)


def check_time(event: Dated, *, now_ms: int, skew_ms: int) -> Dated:
    """`event`, unless it says that it happened more than `skew_ms` after `now_ms`: then InvalidRecord."""
    ahead_ms = event.occurred_at - now_ms
    if ahead_ms > skew_ms:
        raise InvalidRecord(
            f"occurred_at is {ahead_ms / 1000:.0f} s in the future (limit {skew_ms / 1000:.0f} s): "
            "send UTC milliseconds and check the producer's clock"
        )
    return event
