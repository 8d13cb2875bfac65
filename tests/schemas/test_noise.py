from hypothesis import given
from hypothesis import strategies as st

from schemas.noise import judged_texts, without_noise
from schemas.profile import Signal, Signals, UserProfile


def signals(*texts: str) -> Signals:
    return tuple(Signal(at, str(at), text) for at, text in enumerate(texts, start=1))


READER = UserProfile("u", page=signals("a", "b", "c"), search=signals("c", "d"), click=signals("b", "news"))
TEXTS = st.lists(st.sampled_from("abcdef"), max_size=5)


def test_the_latest_pages_and_searches_are_judged_and_no_click() -> None:
    assert judged_texts(READER, latest=2) == ["b", "c", "d"]
    assert judged_texts(READER, latest=99) == ["a", "b", "c", "d"]
    assert judged_texts(READER, latest=0) == []


def test_noise_is_taken_from_pages_and_searches_and_from_no_click() -> None:
    cleaned = without_noise(READER, {"b", "c"})
    assert ([row.text for row in cleaned.page], [row.text for row in cleaned.search]) == (["a"], ["d"])
    assert cleaned.click == READER.click


def test_a_reader_with_nothing_but_noise_keeps_it() -> None:
    reader = UserProfile("u", page=signals("a"), search=signals("b"))
    assert without_noise(reader, {"a", "b"}) is reader
    assert without_noise(reader, {"a"}).search == reader.search


@given(TEXTS, TEXTS, TEXTS, st.sets(st.sampled_from("abcdef")))
def test_it_is_idempotent_and_keeps_the_order(
    page: list[str], search: list[str], click: list[str], noise: set[str]
) -> None:
    reader = UserProfile("u", page=signals(*page), search=signals(*search), click=signals(*click))
    once = without_noise(reader, noise)
    assert without_noise(once, noise) == once
    assert list(once.page) == sorted(once.page)
    assert set(once.page) <= set(reader.page)
