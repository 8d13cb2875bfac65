"""What the recommender answered to whom, and what came of it: the log that experiments are read from."""

from typing import Annotated, Literal

import msgspec

from schemas.candidates import CandidateSource
from schemas.errors import InvalidRecord
from schemas.event import Identifier, Milliseconds

NO_EXPERIMENT = ""  # the `experiment` and `arm` of an answer outside any experiment
OutcomeKind = Literal["click", "dwell", "visit"]


class Exposure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place of one answer. An answer without articles is one row at position 0, so that no request is missing.

    Logged for every arm alike, also where the path is off: `triggered` says whether the path had something for this
    reader, which is known without showing it (the counterfactual trigger of experiments.md).
    """

    exposure_id: Identifier  # <request_id>:<position>: a repeated request repeats it
    request_id: Identifier
    user_id: Identifier
    experiment: Annotated[str, msgspec.Meta(max_length=128)] = NO_EXPERIMENT
    arm: Annotated[str, msgspec.Meta(max_length=128)] = NO_EXPERIMENT
    phase: Annotated[int, msgspec.Meta(ge=0)] = 0  # counts the changes of the experiment's weights
    triggered: bool
    position: Annotated[int, msgspec.Meta(ge=0)]  # 1 is the top
    article_id: Identifier | None = None
    propensity: Annotated[float, msgspec.Meta(gt=0, le=1)]  # with which this policy puts this article at this place
    source: CandidateSource
    query_slot: int | None = None  # of the stored query that brought the article
    exclusive: bool = False  # no other path of this API would have brought the article
    list_age_ms: int | None = None
    model: str = ""
    model_version: str = ""
    prompt_version: str = ""
    reader_signals: int = 0  # kept of the reader at that moment: few = a cold reader
    exposed_at: Milliseconds


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reader did with an answer. `value`: 1 for a click, seconds for a dwell, 1 for a visit."""

    outcome_id: Identifier
    request_id: Identifier | None = None  # none for a visit that no answer led to
    user_id: Identifier
    article_id: Identifier | None = None
    kind: OutcomeKind
    value: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    occurred_at: Milliseconds


def check_outcome(outcome: Outcome) -> Outcome:
    """`outcome`, unless it cannot be counted: InvalidRecord says what is missing."""
    if outcome.kind != "visit" and outcome.article_id is None:
        raise InvalidRecord(f"a {outcome.kind} needs the article_id of what was clicked or read")
    if outcome.kind != "dwell" and outcome.value != 1:
        raise InvalidRecord(f"the value of a {outcome.kind} is 1; only a dwell has another one, its seconds")
    return outcome
