import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.cleaning import Dropped, clean_event, strip_trackers, tidy_text
from schemas.event import Event, Kind


def event(text: str, kind: Kind = "search", locale: str | None = None, consent: bool = True) -> Event:
    return Event(event_id="e", user_id="u", kind=kind, text=text, occurred_at=1, locale=locale, consent=consent)


def reason(cleaned: Event | Dropped) -> str | None:
    return cleaned.reason if isinstance(cleaned, Dropped) else None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("facebook", "navigational"),
        ("google maps", "navigational"),
        ("www.weather.com", "navigational"),
        ("nytimes.com", "navigational"),
        ("Sign in - Google Accounts", "login"),
        ("forgot my password", "login"),
        ("Inbox (12)", "login"),
        ("Grafana dashboard", "console"),
        ("localhost:3000", "console"),
        ("404 not found", "console"),
        ("mail jane.doe@mail.example", "personal_data"),
        ("call 555-123-4567", "personal_data"),
        ("4111 1111 1111 1111", "no_words"),
        ("card 4111 1111 1111 1111", "personal_data"),
        ("ssn 078-05-1120", "personal_data"),
        ("погода в москве", "language"),
        ("12345", "no_words"),
        ("facebook outage explained", None),
        ("google antitrust trial", None),
        ("how to prune roses", None),
        ("election 2024 results 270", None),
    ],
)
def test_searches(text: str, why: str | None) -> None:
    assert reason(clean_event(event(text), languages=("en",))) == why


def test_headlines_may_be_about_passwords() -> None:
    assert reason(clean_event(event("Why your password is weak", "click"), languages=("en",))) is None


def test_the_locale_decides_the_language() -> None:
    assert reason(clean_event(event("wetter morgen", locale="de-DE"), languages=("en",))) == "language"
    assert reason(clean_event(event("wetter morgen", locale="de-DE"), languages=("en", "de"))) is None


def test_a_configured_script_is_kept() -> None:
    assert reason(clean_event(event("погода в москве"), languages=("en", "ru"))) is None


def test_without_consent_nothing_is_kept() -> None:
    assert reason(clean_event(event("roses", consent=False), languages=("en",))) == "no_consent"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://a.example/x?id=7&utm_source=mail&fbclid=z#top", "https://a.example/x?id=7"),
        ("https://a.example/x?gclid=1", "https://a.example/x"),
        ("https://me:secret@a.example/x", "https://a.example/x"),
        ("https://a.example/x", "https://a.example/x"),
        ("https://[broken?x=1", ""),
    ],
)
def test_trackers_leave_the_url(url: str, clean: str) -> None:
    assert strip_trackers(url) == clean


@given(st.text(max_size=60))
def test_tidying_is_idempotent_and_printable(text: str) -> None:
    tidy = tidy_text(text)
    assert tidy_text(tidy) == tidy
    assert "\n" not in tidy
    assert "\x00" not in tidy


@given(st.text(min_size=1, max_size=60))
def test_cleaning_never_raises_and_is_idempotent(text: str) -> None:
    once = clean_event(event(text), languages=("en",))
    if isinstance(once, Event):
        assert clean_event(once, languages=("en",)) == once
