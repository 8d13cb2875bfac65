import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keenstream.stack.part import Backoff, Part
from keenstream.stack.state import ProcessIdentity, processes_of, read_state, state_path
from keenstream.stack.supervisor import Supervisor, supervised
from tests.keenstream.stack.programs import PARENT, STUBBORN, eventually, first_line, gone, part

QUICK = Backoff(first_seconds=0.05, most_seconds=0.4)


@contextmanager
def running(home: Path, *parts: Part) -> Iterator[Supervisor]:
    identity = ProcessIdentity.of(os.getpid())
    with supervised(Supervisor(parts, home, f"run-{home.name}", identity, backoff=QUICK)) as supervisor:
        yield supervisor


def pid_of(supervisor: Supervisor, name: str) -> int:
    process = supervisor.state.part(name).process
    assert process
    return process.pid


class Probe:
    """Answers as told, and fails a number of times in between."""

    def __init__(self, works: bool = True) -> None:
        self.works, self.calls, self.failures = works, 0, 0

    def __call__(self) -> None:
        self.calls += 1
        if not self.works or self.failures:
            self.failures = max(0, self.failures - 1)
            raise ConnectionRefusedError("nobody there")

    def mend(self) -> None:
        self.works = True


def test_all_parts_become_ready_and_the_state_file_says_so(tmp_path: Path) -> None:
    with running(tmp_path, part("a"), part("b")) as supervisor:
        eventually(lambda: supervisor.state.ready)
        eventually(lambda: read_state(tmp_path) == supervisor.state)
    assert not state_path(tmp_path).exists()


def test_a_part_waits_until_what_it_depends_on_answers(tmp_path: Path) -> None:
    probe = Probe(works=False)
    with running(tmp_path, part("kafka", probe=probe), part("worker", depends_on=("kafka",))) as supervisor:
        eventually(lambda: probe.calls > 3)
        assert supervisor.state.part("worker").status == "waiting"
        probe.works = True
        eventually(lambda: supervisor.state.ready)


def test_a_task_is_done_before_the_workers_start(tmp_path: Path) -> None:
    made = tmp_path / "topics"
    task = part("prepare", (sys.executable, "-c", f"open({str(made)!r}, 'w')"), probe=None)
    needs_it = (sys.executable, "-c", f"import time; open({str(made)!r}); time.sleep(600)")
    with running(tmp_path, task, part("worker", needs_it, depends_on=("prepare",))) as supervisor:
        eventually(lambda: supervisor.state.ready)
        assert supervisor.state.part("prepare").status == "done"
        assert supervisor.state.part("worker").restarts == 0


def test_a_killed_part_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path, part("a"), part("b")) as supervisor:
        eventually(lambda: supervisor.state.ready)
        first, other = pid_of(supervisor, "a"), pid_of(supervisor, "b")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: supervisor.state.part("a").restarts == 1 and supervisor.state.ready)
        assert pid_of(supervisor, "a") != first
        assert pid_of(supervisor, "b") == other


def test_a_part_that_no_longer_answers_is_started_again(tmp_path: Path) -> None:
    probe = Probe()
    with running(tmp_path, part("a", probe=probe)) as supervisor:
        eventually(lambda: supervisor.state.ready)
        first, probe.works = pid_of(supervisor, "a"), False
        eventually(lambda: supervisor.state.part("a").restarts == 1)
        assert "nobody there" in supervisor.state.part("a").problem
        probe.works = True
        eventually(lambda: supervisor.state.ready)
        assert gone(first)


def test_a_few_failed_probes_restart_nothing(tmp_path: Path) -> None:
    probe = Probe()
    with running(tmp_path, part("a", probe=probe, probe_failures=3)) as supervisor:
        eventually(lambda: supervisor.state.ready)
        first, before = pid_of(supervisor, "a"), probe.calls
        probe.failures = 2
        eventually(lambda: probe.calls > before + 4)
        eventually(lambda: supervisor.state.ready)
        assert supervisor.state.part("a").restarts == 0
        assert pid_of(supervisor, "a") == first


def test_a_repair_is_tried_before_a_restart(tmp_path: Path) -> None:
    probe = Probe()
    with running(tmp_path, part("triton", probe=probe, repair=probe.mend)) as supervisor:
        eventually(lambda: supervisor.state.ready)
        first, probe.works = pid_of(supervisor, "triton"), False
        eventually(lambda: supervisor.state.part("triton").status == "failing")
        eventually(lambda: supervisor.state.ready)
        assert pid_of(supervisor, "triton") == first


def test_a_repair_that_does_not_help_ends_in_a_restart(tmp_path: Path) -> None:
    probe, repairs = Probe(), Probe()
    with running(tmp_path, part("triton", probe=probe, repair=repairs)) as supervisor:
        eventually(lambda: supervisor.state.ready)
        probe.works = False
        eventually(lambda: supervisor.state.part("triton").restarts == 1)
        assert repairs.calls == 1


def test_a_part_that_cannot_start_is_tried_again_and_holds_up_nobody(tmp_path: Path) -> None:
    broken = part("broken", (sys.executable, "-c", "print('no such disk'); raise SystemExit(4)"), probe=Probe(False))
    with running(tmp_path, broken, part("a")) as supervisor:
        eventually(lambda: supervisor.state.part("broken").failed_starts >= 3)
        assert supervisor.state.part("a").status == "ready"
        eventually(lambda: "no such disk" in supervisor.state.part("broken").problem)


def test_a_start_that_takes_too_long_is_a_failed_start(tmp_path: Path) -> None:
    slow = part("slow", probe=Probe(works=False), start_timeout_seconds=0.3)
    with running(tmp_path, slow) as supervisor:
        eventually(lambda: supervisor.state.part("slow").failed_starts >= 2)


def test_a_hanging_probe_does_not_hold_up_the_others(tmp_path: Path) -> None:
    answer = threading.Event()

    def hang() -> None:
        assert answer.wait(120)

    with running(tmp_path, part("hanging", probe=hang), part("a")) as supervisor:
        eventually(lambda: supervisor.state.part("a").status == "ready")
        assert supervisor.state.part("hanging").status != "ready"
        answer.set()
        eventually(lambda: supervisor.state.ready)


@pytest.mark.parametrize("argv", [PARENT, STUBBORN], ids=["with a child of its own", "deaf to SIGTERM"])
def test_the_end_leaves_nothing_behind(tmp_path: Path, argv: tuple[str, ...]) -> None:
    with running(tmp_path, part("a", argv), part("b", depends_on=("a",))) as supervisor:
        eventually(lambda: supervisor.state.ready)
        first_line(tmp_path / "logs" / "a.log")
        assert len(processes_of(f"run-{tmp_path.name}")) >= 2
    assert processes_of(f"run-{tmp_path.name}") == []


def test_dependents_end_before_what_they_depend_on(tmp_path: Path) -> None:
    order = tmp_path / "order"
    program = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(sys.argv[1] + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\n"
        "time.sleep(600)"
    )
    parts = [
        part("worker", (sys.executable, "-c", program, "worker"), depends_on=("kafka",), grace_seconds=60),
        part("kafka", (sys.executable, "-c", program, "kafka"), grace_seconds=60),
    ]
    with running(tmp_path, *parts):
        first_line(tmp_path / "logs" / "worker.log")
    assert order.read_text() == "worker kafka "
