"""The golden file pins the prompt: when it changes on purpose, give it a new version and a new file."""

from pathlib import Path

import pytest

from schemas.event import Event
from schemas.profile import UserProfile, fold_event
from schemas.prompt import BARE, EXAMPLES, MAX_SIGNALS, PromptVersion, render_prompt

GOLDEN = Path(__file__).parent.parent / "data"


def reader() -> UserProfile:
    profile = UserProfile("reader")
    rows = [
        ("page", "Heat pump; buyer's guide"), ("search", "heat pump noise"), ("search", "heat pump noise"),
        ("click", "Cities ban gas boilers in new homes"), ("page", "A very long title " + "that goes on " * 12),
    ]  # fmt: skip
    for at, (kind, text) in enumerate(rows, start=1):
        event = Event(event_id=str(at), user_id="reader", kind=kind, text=text, occurred_at=at)  # type: ignore[arg-type]
        profile = fold_event(profile, event, signals_per_domain=50)
    return profile


@pytest.mark.parametrize("version", [EXAMPLES, BARE])
def test_the_prompt_is_the_golden_one(version: PromptVersion) -> None:
    assert render_prompt(reader(), version) == (GOLDEN / f"prompt-{version}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", [EXAMPLES, BARE])
def test_only_the_latest_signals_of_a_kind_are_told(version: PromptVersion) -> None:
    profile = UserProfile("reader")
    for at in range(1, 20):
        event = Event(event_id=str(at), user_id="reader", kind="page", text=f"page {at}", occurred_at=at)
        profile = fold_event(profile, event, signals_per_domain=50)
    line = render_prompt(profile, version).splitlines()[-2]
    assert line.count(";") + 1 == MAX_SIGNALS[version]["page"]
    assert line.endswith("page 19")


def test_worked_examples_come_first_so_that_a_prefix_cache_serves_them() -> None:
    examples, bare = render_prompt(reader(), EXAMPLES), render_prompt(reader(), BARE)
    assert examples.endswith(bare)
    assert len(examples) > len(bare)
