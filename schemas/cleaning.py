"""Cleaning by rules: which signals say nothing about a reader's interests, and which must not be kept at all.

The paper's first stage (section "cleaning"); the stream and the offline jobs call the same function, so that both see
the same profile. Rules are few and precise on purpose: what they let through, the trained cleaner judges later.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from schemas.event import Event

Reason = Literal["no_consent", "navigational", "login", "console", "personal_data", "language", "no_words"]

_SITES = (
    "facebook|fb|google|gmail|youtube|yt|amazon|ebay|netflix|twitter|x|instagram|linkedin|whatsapp|reddit|bing|yahoo|"
    "outlook|hotmail|wikipedia|tiktok|paypal|zoom|spotify|pinterest|duckduckgo|chatgpt|walmart|craigslist|roblox|hulu"
)
_NAVIGATIONAL = re.compile(
    rf"^(?:(?:go to|open|www\.)\s*)?(?:{_SITES})(?:\s?\.?\s?com?)?"
    r"(?:\s+(?:home ?page|website|app|page|maps|translate|drive|search|web|mail|online))?$|"
    r"^(?:https?://)?(?:[\w-]+\.)+(?:com|org|net|gov|edu|io|co|tv|de|uk|fr)(?:\.\w{2})?/?$",
    re.IGNORECASE,
)
_LOGIN = re.compile(
    r"\b(?:log ?in|log ?on|log ?out|sign ?in|sign ?up|sign ?out|my account|password(?: reset)?|forgot (?:my )?password|"
    r"two.factor|verification code|create an? account|inbox(?: \(\d+\))?|shopping cart|checkout|order confirmation)\b",
    re.IGNORECASE,
)
_CONSOLE = re.compile(
    r"\b(?:localhost|127\.0\.0\.1|admin (?:console|panel)|dashboards?|jenkins|grafana|kibana|"
    r"aws (?:management )?console|azure portal|new tab|untitled|about:blank|"
    r"page not found|404 (?:not found|error)|access denied|captcha|"
    r"just a moment)\b",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
_DIGIT = re.compile(r"\d")
_PERSONAL_NUMBER = re.compile(
    r"(?<!\d)(?:\+?\d{1,3}[\s.-]?)?\(?\d{3}\)?[\s.-]\d{3}[\s.-]\d{4}(?!\d)"  # telephone
    r"|(?<!\d)(?:\d[ -]?){13,19}(?!\d)"  # payment card
    r"|(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)"  # social security number
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"  # IBAN
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\ufeff]+")
_SPACES = re.compile(r"\s+")
_TRACKER = re.compile(
    r"^(?:utm_\w+|gclid|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|_ga|_hs\w+|ref_?src|spm|cmpid|ocid)$", re.I
)
_SCRIPTS = {
    "ru": "CYRILLIC", "uk": "CYRILLIC", "bg": "CYRILLIC", "sr": "CYRILLIC", "el": "GREEK", "he": "HEBREW",
    "ar": "ARABIC", "fa": "ARABIC", "ur": "ARABIC", "hi": "DEVANAGARI", "th": "THAI",
    "ko": "HANGUL", "ja": "CJK", "zh": "CJK",
}  # fmt: skip


class Dropped(msgspec.Struct, frozen=True):
    """The event is not kept; `reason` is a metric label."""

    reason: Reason


_DROPPED: dict[Reason, Dropped] = {reason: Dropped(reason) for reason in Reason.__args__}  # type: ignore[attr-defined]


def clean_event(event: Event, *, languages: Sequence[str]) -> Event | Dropped:
    """The event with tidy text and a URL without trackers, or why it is dropped.

    `languages` are ISO 639-1 codes; the event's `locale` decides, and without one the script of the text.
    """
    text = tidy_text(event.text)
    reason = drop_reason(event, text, languages)
    if reason:
        return _DROPPED[reason]
    url = strip_trackers(event.url) if event.url else event.url
    if text == event.text and url == event.url:
        return event
    return msgspec.structs.replace(event, text=text, url=url)


def drop_reason(event: Event, text: str, languages: Sequence[str]) -> Reason | None:
    """The first rule that drops the event whose tidy text is `text`; None to keep it."""
    if not event.consent:
        return "no_consent"
    if not any(character.isalpha() for character in text):
        return "no_words"
    if _is_personal(text):
        return "personal_data"
    if not _is_configured_language(event.locale, text, languages):
        return "language"
    return _boilerplate(event, text)


def tidy_text(text: str) -> str:
    """Control and invisible characters out, white space single, Unicode in NFC."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    return _SPACES.sub(" ", _CONTROL.sub(" ", unicodedata.normalize("NFC", text))).strip()


def strip_trackers(url: str) -> str:
    """`url` without the parameters that follow a person around, without credentials and fragment."""
    if "?" not in url and "#" not in url and "@" not in url:
        return url
    try:
        parts = urlsplit(url)
        kept = [(name, value) for name, value in parse_qsl(parts.query) if not _TRACKER.match(name)]
    except ValueError:
        return ""  # not a URL; nothing that leans on it may break
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept), ""))


def _is_personal(text: str) -> bool:
    # the cheap looks first: these patterns were two thirds of the fold's time
    if "@" in text and _EMAIL.search(text):
        return True
    return bool(_DIGIT.search(text) and _PERSONAL_NUMBER.search(text))


def _boilerplate(event: Event, text: str) -> Reason | None:
    # Headlines may well be about passwords and dashboards: those rules are for searches and pages.
    if event.kind == "click":
        return None
    if _NAVIGATIONAL.match(text):
        return "navigational"
    if _LOGIN.search(text):
        return "login"
    return "console" if _CONSOLE.search(text) else None


def _is_configured_language(locale: str | None, text: str, languages: Sequence[str]) -> bool:
    if locale and locale[:2].lower() not in languages:
        return False
    if text.isascii():
        return True
    scripts = {_SCRIPTS.get(language, "LATIN") for language in languages}
    letters = [character for character in text if character.isalpha()]
    known = sum(any(_in_script(character, script) for script in scripts) for character in letters)
    return known * 2 > len(letters)


def _in_script(character: str, script: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(script) or (script == "CJK" and name.startswith(("HIRAGANA", "KATAKANA")))
