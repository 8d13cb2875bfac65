"""What the cleaner learns from: texts of pages and searches, each to be kept or dropped.

Two sources, which may be mixed: a folder of `keenstream simulate`, where the truth names the events that are noise, and
a user's own files of JSON Lines, one object a line:

    {"text": "my account", "label": "drop"}
    {"text": "brisket rub", "label": "keep", "kind": "search", "user_id": "u1"}

`kind` is page or search (default: search). Rows are split by `user_id`, as examples are (offline/reader_groups.py), so
that it is reported on readers nobody trained on; without one by the text itself, its digits and case aside. Clicks on
news are never judged, and so never labelled.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from offline.reader_groups import SPLITS, SplitName, split_of
from offline.simulate import EVENTS_FILE, TRUTH_FILE
from offline.simulate.sessions import NOISE
from offline.simulate.truth import EventTruth, Truth
from schemas.cleaning import tidy_text
from schemas.codec import EVENTS
from schemas.errors import InvalidRecord, UsageError

Verdict = Literal["keep", "drop"]
JudgedKind = Literal["page", "search"]
VERDICTS: tuple[Verdict, Verdict] = ("keep", "drop")  # their places are the classes of the model
_DIGITS = re.compile(r"\d+")


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One text with its verdict. The same text may come more than once: it counts as often."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
    label: Verdict
    kind: JudgedKind = "search"
    user_id: str = ""

    @property
    def dropped(self) -> bool:
        return self.label == "drop"


class LabelSet(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by split, in the order in which they came."""

    training: tuple[Label, ...]
    validation: tuple[Label, ...]
    held_out: tuple[Label, ...]
    sha256: str


def load_labels(paths: Sequence[Path]) -> LabelSet:
    """Rows of all files and simulated folders. UsageError names a bad line and its field, or the label that is missing
    in a split."""
    split: dict[SplitName, list[Label]] = {name: [] for name in SPLITS}
    digest = hashlib.sha256()
    for row in (row for path in paths for row in read_labels(path)):
        split[split_of_label(row)].append(row)
        digest.update(msgspec.json.encode(row) + b"\n")
    for name, rows in split.items():
        if lacking := [verdict for verdict in VERDICTS if all(row.label != verdict for row in rows)]:
            raise UsageError(f"the {len(rows)} {name} labels have no {lacking[0]!r}: label more texts, of more readers")
    return LabelSet(sha256=digest.hexdigest(), **{name: tuple(rows) for name, rows in split.items()})


def split_of_label(row: Label) -> SplitName:
    """By reader where one is named, else by what texts of one form share, so that copies stay together."""
    return split_of(row.user_id or f"text {_DIGITS.sub('0', ' '.join(row.text.casefold().split()))}")


def read_labels(path: Path) -> Iterator[Label]:
    """Of a file of JSON Lines, or of a folder of `keenstream simulate`."""
    if not path.exists():
        raise UsageError(
            f"there are no labels at {path}: name a file of JSON Lines or a folder of `keenstream simulate`"
        )
    return _of_world(path) if path.is_dir() else _of_file(path)


def _of_file(path: Path) -> Iterator[Label]:
    decoder = msgspec.json.Decoder(Label)
    for number, line in _lines(path):
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        text = tidy_text(row.text)
        if not text:
            raise UsageError(f"{path}, line {number}: `text` holds no visible character")
        yield msgspec.structs.replace(row, text=text)


def _of_world(folder: Path) -> Iterator[Label]:
    """Pages and searches, each event once; a duplicate repeats an id."""
    if not (folder / TRUTH_FILE).is_file():
        raise UsageError(
            f"{folder} has no {TRUTH_FILE}, in which `keenstream simulate` says what is noise: name such a folder, or "
            "a file of JSON Lines with text and label"
        )
    noise, seen = _noise_ids(folder / TRUTH_FILE), set[str]()
    for number, line in _lines(folder / EVENTS_FILE):
        try:
            event = EVENTS.decode(line)
        except InvalidRecord as error:
            raise UsageError(f"{folder / EVENTS_FILE}, line {number}: {error}") from error
        text = tidy_text(event.text)
        if event.kind == "click" or event.event_id in seen or not text:
            continue
        seen.add(event.event_id)
        yield Label(text, "drop" if event.event_id in noise else "keep", event.kind, event.user_id)


def _noise_ids(path: Path) -> frozenset[str]:
    decoder = msgspec.json.Decoder(Truth)
    try:
        rows = [decoder.decode(line) for _, line in _lines(path)]
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path} is not the truth of a simulation: {error}") from error
    return frozenset(row.event_id for row in rows if isinstance(row, EventTruth) and row.origin == NOISE)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered from one; blank ones are left out."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def distinct(rows: Iterable[Label]) -> list[Label]:
    """Each text once (case aside), with the verdict that most of its rows have; `keep` where they are even."""
    votes: defaultdict[str, Counter[Verdict]] = defaultdict(Counter)
    first: dict[str, Label] = {}
    for row in rows:
        key = row.text.casefold()
        votes[key][row.label] += 1
        first.setdefault(key, row)
    return [
        msgspec.structs.replace(row, label="drop" if votes[key]["drop"] > votes[key]["keep"] else "keep")
        for key, row in first.items()
    ]
