"""Hypothesis strategies of the contracts."""

from hypothesis import strategies as st

from schemas.event import KINDS, Event
from schemas.profile import UserProfile, fold_event

LIMIT = 4  # small, so that histories overflow it


def events(user_id: str = "reader") -> st.SearchStrategy[Event]:
    """Few times, ids and texts, so that collisions of every sort are common."""
    return st.builds(
        Event,
        event_id=st.sampled_from(["a", "b", "c", "d"]),
        user_id=st.just(user_id),
        kind=st.sampled_from(KINDS),
        text=st.sampled_from(["one", "two", "three"]),
        occurred_at=st.integers(1, 6),
    )


@st.composite
def profiles(draw: st.DrawFn) -> UserProfile:
    """Profiles that can occur: folded from events, then perhaps erased."""
    profile = UserProfile("reader", erased_before=draw(st.integers(0, 3)))
    for event in draw(st.lists(events(), max_size=12)):
        profile = fold_event(profile, event, signals_per_domain=LIMIT)
    return profile
