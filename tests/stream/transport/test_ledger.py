"""The ledger against a naive one that keeps every offset."""

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stream.transport.ledger import DeliveredRuns, Run

KEY = "partition"


class Ledger(RuleBasedStateMachine):
    """Runs are delivered, acknowledged in any order, lost from queues, and read again from the committed offset."""

    @initialize(log=st.sets(st.integers(0, 60), min_size=1))
    def begin(self, log: set[int]) -> None:
        """The offsets of the log have holes, as compaction and transaction markers leave them."""
        self.ledger: DeliveredRuns[str] = DeliveredRuns()
        self.log = sorted(log)
        self.committed = 0
        self.next = 0
        self.in_hand: list[tuple[Run, set[int]]] = []
        self.done: set[int] = set()

    @rule(length=st.integers(1, 5))
    def deliver(self, length: int) -> None:
        offsets = [offset for offset in self.log if offset >= self.next][:length]
        if offsets:
            self.in_hand.append((self.ledger.deliver(KEY, offsets[0], offsets[-1]), set(offsets)))
            self.next = offsets[-1] + 1

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        run, offsets = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        run.acked = True
        self.done |= offsets

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Dropped from a queue in a rebalance; a seek follows at once."""
        self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        self.rewind()

    @rule()
    def commit(self) -> None:
        self.committed = max(self.committed, self.ledger.safe(KEY) or 0)

    @rule()
    def rewind(self) -> None:
        self.ledger.rewind()
        self.next = self.committed

    @invariant()
    def never_past_a_record_that_is_not_done(self) -> None:
        safe = self.ledger.safe(KEY)
        if safe is not None:
            assert {offset for offset in self.log if offset < safe} <= self.done

    def teardown(self) -> None:
        """Once everything is read again and acknowledged, everything may be committed."""
        self.rewind()
        while [offset for offset in self.log if offset >= self.next]:
            self.deliver(3)
        for run, _ in self.in_hand:
            run.acked = True
        if self.committed <= self.log[-1]:
            assert self.ledger.safe(KEY) == self.log[-1] + 1
            assert self.ledger.unfinished(KEY) == 0


TestLedger = Ledger.TestCase
TestLedger.settings = hypothesis_settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.fixture
def ledger() -> DeliveredRuns[str]:
    return DeliveredRuns()


def test_nothing_is_safe_before_the_first_acknowledgement(ledger: DeliveredRuns[str]) -> None:
    ledger.deliver(KEY, 0, 9)
    assert ledger.safe(KEY) is None
    assert ledger.unfinished(KEY) == 1


def test_a_late_first_run_holds_all_later_ones(ledger: DeliveredRuns[str]) -> None:
    first, *later = [ledger.deliver(KEY, 10 * n, 10 * n + 9) for n in range(5)]
    for run in later:
        run.acked = True
    assert ledger.safe(KEY) is None
    first.acked = True
    assert ledger.safe(KEY) == 50


def test_holes_between_runs_are_passed(ledger: DeliveredRuns[str]) -> None:
    for first, last in [(3, 5), (90, 91), (1000, 1000)]:
        ledger.deliver(KEY, first, last).acked = True
    assert ledger.safe(KEY) == 1001


def test_what_is_finished_after_a_seek_still_counts(ledger: DeliveredRuns[str]) -> None:
    in_hand = ledger.deliver(KEY, 0, 9)
    ledger.rewind()
    ledger.deliver(KEY, 0, 4)
    in_hand.acked = True
    assert ledger.safe(KEY) == 10


def test_a_run_lost_before_a_seek_holds_up_nothing(ledger: DeliveredRuns[str]) -> None:
    ledger.deliver(KEY, 0, 9)
    ledger.rewind()
    ledger.deliver(KEY, 0, 19).acked = True
    assert ledger.safe(KEY) == 20


def test_a_late_acknowledgement_of_a_dropped_partition_commits_nothing(ledger: DeliveredRuns[str]) -> None:
    run = ledger.deliver(KEY, 0, 9)
    ledger.drop([KEY])
    ledger.deliver(KEY, 0, 4)
    run.acked = True
    assert ledger.safe(KEY) is None


def test_the_origin_is_the_lowest_offset_fetched(ledger: DeliveredRuns[str]) -> None:
    ledger.began(KEY, 40)
    ledger.deliver(KEY, 50, 60)
    ledger.began(KEY, 45)
    assert ledger.origin(KEY) == 40
    assert ledger.origin("another") is None
