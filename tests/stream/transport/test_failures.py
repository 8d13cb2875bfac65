"""Workers that are killed, fail, stall, or come and go: nothing is lost, and the process says so."""

import signal
import time
from pathlib import Path

import pytest

from keenstream.stack.kafka import kafka_server
from tests.stream.transport.conftest import KILLED_SESSION_SECONDS, Bench, eventually
from tests.stream.transport.test_delivery import ids_by_key
from tests.stream.transport.worker_program import PARTITIONS

pytestmark = [pytest.mark.stack, pytest.mark.fault]


def test_a_killed_worker_loses_nothing_and_its_state_comes_back(bench: Bench) -> None:
    values = bench.produce(6000)
    worker = bench.start(session_seconds=KILLED_SESSION_SECONDS)
    assert eventually(lambda: len(bench.lines()) > 1000)
    bench.end(worker, signal.SIGKILL)
    values += bench.produce(6000, first=6000)
    next_worker = bench.start()
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(next_worker) == 0
    # rows of the first worker that the second one did not restore would lack their ids here
    assert bench.state() == ids_by_key(values)


def test_repeated_kills_in_the_middle_of_flushes(bench: Bench) -> None:
    values: list[str] = []
    for number in range(3):
        values += bench.produce(4000, first=4000 * number)
        worker, before = bench.start(), len(bench.lines())
        assert eventually(lambda before=before: len(bench.lines()) > before + 300)  # type: ignore[misc]
        bench.kill(worker)
    last = bench.start()
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(last) == 0
    assert bench.values() == set(values)
    assert bench.state() == ids_by_key(values)


@pytest.mark.parametrize(("mode", "held"), [("hold", {0, 1, 2, 3}), ("slow", {0})])
def test_a_commit_never_passes_a_run_that_is_not_acknowledged(bench: Bench, mode: str, held: set[int]) -> None:
    early = bench.produce(400)
    worker = bench.start(mode)
    assert eventually(lambda: bench.values() >= set(early))
    late = bench.produce(4000, first=400)
    assert eventually(lambda: bench.values() >= set(late))
    free = set(range(PARTITIONS)) - held
    assert eventually(lambda: {partition for _, partition in bench.committed()} >= free)
    time.sleep(1.5)  # five commit intervals
    assert {partition for _, partition in bench.committed()} == free
    bench.kill(worker)
    bench.forget_lines()
    next_worker = bench.start()
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(next_worker) == 0
    again = {at for at in bench.offsets() if at[1] in held}
    assert again == {(*at, offset) for at, end in bench.ends().items() if at[1] in held for offset in range(end)}


def test_an_exception_in_the_body_ends_the_worker_and_acknowledges_nothing(bench: Bench) -> None:
    values = bench.produce(300)
    assert bench.ended(bench.start("fail")) == 1
    assert bench.values() != set()
    assert bench.committed() == {}
    bench.forget_lines()
    worker = bench.start()
    assert eventually(lambda: bench.values() == set(values))
    assert bench.end(worker) == 0


def test_a_worker_whose_commits_stand_still_ends_itself(bench: Bench) -> None:
    bench.produce(100)
    assert bench.ended(bench.start("stalls")) == 1


def test_a_worker_that_does_not_get_ready_ends_itself(bench: Bench) -> None:
    assert bench.ended(bench.start("late")) == 1


@pytest.mark.parametrize("seconds", [1.0, 2.5, 4.0])
def test_a_stop_during_the_start_is_no_crash(bench: Bench, seconds: float) -> None:
    worker = bench.start()
    time.sleep(seconds)
    assert bench.end(worker) in (0, -signal.SIGTERM)  # the kernel's, before Python has set its handlers


def test_a_rebalance_in_the_middle_of_a_stop_waits_for_what_is_in_hand(bench: Bench) -> None:
    leaving, lasting = bench.start(), bench.start("lasting")
    values: list[str] = []

    def both_work() -> bool:
        values.extend(bench.produce(100, first=len(values)))
        return all(bench.lines(number) for number in range(2))

    assert eventually(both_work)
    lasting.send_signal(signal.SIGTERM)  # in the middle of a batch, as a rule
    assert bench.end(leaving) == 0
    assert bench.ended(lasting) == 0
    last = bench.start()
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(last) == 0
    assert len(bench.lines()) == len(values)


def test_more_workers_than_partitions_wait_for_their_turn(bench: Bench) -> None:
    values = bench.produce(500)
    workers = [bench.start() for _ in range(PARTITIONS + 1)]
    assert eventually(lambda: bench.values() == set(values))
    for number, worker in enumerate(workers):
        assert bench.end(worker) == 0
        values += bench.produce(100, first=1000 * (number + 1))
    last = bench.start()
    assert eventually(lambda: bench.values() == set(values))
    assert bench.end(last) == 0
    assert bench.state() == ids_by_key(values)


def test_workers_without_a_table_share_partitions_too(bench: Bench) -> None:
    values = bench.produce(500)
    first = bench.start("bare")
    assert eventually(lambda: bench.values() == set(values))
    second = bench.start("bare")
    values += bench.produce(4000, first=1000)
    assert eventually(lambda: bench.values() == set(values))
    assert bench.end(first) == 0
    values += bench.produce(500, first=10_000)
    assert eventually(lambda: bench.values() == set(values))
    assert eventually(lambda: bench.committed() == bench.ends())
    assert bench.end(second) == 0


def test_a_broker_that_restarts_under_load_loses_nothing(tmp_path: Path) -> None:
    with kafka_server(tmp_path / "kafka") as server:
        bench = Bench(server.bootstrap, tmp_path)
        values = bench.produce(2000)
        workers = [bench.start(session_seconds=KILLED_SESSION_SECONDS)]
        assert eventually(lambda: len(bench.lines()) > 100)
    time.sleep(3.0)
    with kafka_server(tmp_path / "kafka", port=int(server.bootstrap.rpartition(":")[2])):
        try:
            values += bench.produce(2000, first=2000)

            def done() -> bool:
                if workers[-1].poll() is not None:  # a process manager's part
                    workers.append(bench.start(session_seconds=KILLED_SESSION_SECONDS))
                return bench.values() == set(values) and bench.committed() == bench.ends()

            assert eventually(done)
            assert bench.end(workers[-1]) == 0
            assert bench.state() == ids_by_key(values)
        finally:
            bench.close()


def test_workers_that_join_and_leave_lose_nothing(bench: Bench) -> None:
    values = bench.produce(2000)
    workers = [bench.start()]
    assert eventually(lambda: len(bench.lines()) > 200)

    def all_work() -> bool:
        """Events flow while the newcomer gets its partitions."""
        values.extend(bench.produce(200, first=len(values)))
        return all(len(bench.lines(number)) > 100 for number in range(len(workers)))

    workers.append(bench.start())
    assert eventually(all_work)
    workers.append(bench.start())
    assert eventually(all_work)
    assert bench.end(workers.pop(0)) == 0
    values += bench.produce(2000, first=100_000)
    assert eventually(lambda: bench.committed() == bench.ends())
    assert [bench.end(worker) for worker in workers] == [0, 0]
    assert bench.values() == set(values)
    assert bench.state() == ids_by_key(values)
    assert len(bench.ends()) == PARTITIONS
    assert len(bench.lines()) == len(values)  # a partition is handed over with all that is in hand finished
