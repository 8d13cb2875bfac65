import pytest

from schemas.clients.breaker import Breaker, GuardedStudent
from schemas.clients.memory_models import MemoryStudent
from schemas.clients.models import Completion
from schemas.errors import PermanentError, RetryableError, Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=2, reset_seconds=5.0, clock=clock)


def state(breaker: Breaker) -> str:
    return breaker.state


def open_up(breaker: Breaker) -> None:
    for _ in range(2):
        breaker.enter()
        breaker.fail()


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    breaker.fail()
    breaker.succeed()
    breaker.fail()
    assert state(breaker) == "closed"
    breaker.fail()
    assert state(breaker) == "open"
    assert breaker.wait_seconds() == 5.0


def test_open_refuses_at_once_and_says_for_how_long(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 2
    with pytest.raises(Unavailable, match=r"next attempt in 3\.0 s"):
        breaker.enter()


def test_after_the_pause_a_single_trial_passes(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 5
    assert state(breaker) == "half-open"
    breaker.enter()
    with pytest.raises(Unavailable):
        breaker.enter()
    breaker.succeed()
    assert state(breaker) == "closed"
    breaker.enter()


def test_a_failed_trial_opens_again_for_the_whole_pause(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 5
    breaker.enter()
    breaker.fail()
    assert breaker.wait_seconds() == 5.0


def test_an_abandoned_trial_leaves_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    open_up(breaker)
    clock.now += 5
    breaker.enter()
    breaker.abandon()
    breaker.enter()


async def test_a_student_that_is_away_is_left_alone(breaker: Breaker, clock: Clock) -> None:
    student = GuardedStudent(MemoryStudent(failures=[Unavailable("away")] * 2), breaker)
    for _ in range(2):
        (answer,) = await student.write(["p"])
        assert isinstance(answer, RetryableError)
    with pytest.raises(Unavailable, match="2 times in a row"):
        await student.write(["p"])
    clock.now += 5
    (answer,) = await student.write(["p"])
    assert isinstance(answer, Completion)
    assert state(breaker) == "closed"


async def test_one_answer_among_failures_and_bad_prompts_do_not_open_it(breaker: Breaker) -> None:
    student = GuardedStudent(MemoryStudent(failures=[Unavailable("away")]), breaker)
    answers = [(await student.write(["p", "p"])), (await student.write([""])), (await student.write([""]))]
    assert isinstance(answers[0][0], RetryableError)
    assert isinstance(answers[1][0], PermanentError)
    assert state(breaker) == "closed"
