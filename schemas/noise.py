"""What a trained cleaner is asked about, and what its verdicts take away. Serving and evaluation call the same.

Only pages and searches are judged: what a reader clicked in the news is news. Rules (schemas/cleaning.py) come first
and decide what a profile keeps; the cleaner decides only what is read of it, so that another version may judge anew.
"""

from collections.abc import Container

import msgspec

from schemas.profile import Signals, UserProfile


def judged_texts(profile: UserProfile, *, latest: int) -> list[str]:
    """Distinct texts of the latest so many pages and so many searches, oldest first."""
    return list(dict.fromkeys(signal.text for signals in _judged(profile, latest) for signal in signals))


def without_noise(profile: UserProfile, noise: Container[str]) -> UserProfile:
    """`profile` without the pages and searches whose text is in `noise`; `profile` itself where no signal would be
    left, since poor signals say more than none."""
    page, search = (_kept(signals, noise) for signals in (profile.page, profile.search))
    if not (page or search or profile.click):
        return profile
    return msgspec.structs.replace(profile, page=page, search=search)


def _judged(profile: UserProfile, latest: int) -> tuple[Signals, Signals]:
    return (profile.page[-latest:], profile.search[-latest:]) if latest > 0 else ((), ())


def _kept(signals: Signals, noise: Container[str]) -> Signals:
    return tuple(signal for signal in signals if signal.text not in noise)
