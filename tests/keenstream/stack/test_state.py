import os
import subprocess
import threading
from pathlib import Path

import msgspec
import pytest

from keenstream.stack.state import (
    RUN_VARIABLE,
    PartState,
    ProcessIdentity,
    RunState,
    clear_stale,
    live_state,
    only_supervisor,
    processes_of,
    read_state,
    state_path,
    write_state,
)
from schemas.errors import UsageError
from tests.keenstream.stack.programs import SLEEPER, gone

DEAD = ProcessIdentity(pid=os.getpid(), started=1.0)  # our pid, but another start: the id was used again


def run_state(supervisor: ProcessIdentity, run_id: str = "run-1") -> RunState:
    parts = (PartState(name="kafka", status="ready", address="127.0.0.1:9092", log="kafka.log"),)
    return RunState(run_id=run_id, supervisor=supervisor, environment={"KEENSTREAM_API_KEY": "secret"}, parts=parts)


def test_a_state_comes_back_as_written(tmp_path: Path) -> None:
    state = run_state(ProcessIdentity.of(os.getpid()))
    write_state(tmp_path, state)
    assert read_state(tmp_path) == live_state(tmp_path) == state


def test_only_the_owner_may_read_the_state(tmp_path: Path) -> None:
    write_state(tmp_path, run_state(DEAD))
    assert state_path(tmp_path).stat().st_mode & 0o077 == 0


def test_a_reused_process_id_does_not_look_alive(tmp_path: Path) -> None:
    write_state(tmp_path, run_state(DEAD))
    assert live_state(tmp_path) is None
    assert read_state(tmp_path) is not None


def test_a_damaged_state_file_counts_as_none(tmp_path: Path) -> None:
    write_state(tmp_path, run_state(DEAD))
    state_path(tmp_path).write_text("{")
    assert read_state(tmp_path) is None


def test_what_a_dead_run_left_is_ended_and_forgotten(tmp_path: Path) -> None:
    environment = {**os.environ, RUN_VARIABLE: "run-stale"}
    left = subprocess.Popen(SLEEPER, env=environment, start_new_session=True)
    other = subprocess.Popen(SLEEPER, env={**os.environ, RUN_VARIABLE: "run-other"}, start_new_session=True)
    write_state(tmp_path, run_state(DEAD, "run-stale"))
    try:
        assert [process.pid for process in processes_of("run-stale")] == [left.pid]
        assert clear_stale(tmp_path) == 1
        assert gone(left.pid)
        assert not gone(other.pid)
        assert not state_path(tmp_path).exists()
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


def test_a_live_run_is_not_cleared(tmp_path: Path) -> None:
    write_state(tmp_path, run_state(ProcessIdentity.of(os.getpid())))
    assert clear_stale(tmp_path) == 0
    assert state_path(tmp_path).exists()


def test_a_second_supervisor_of_one_folder_is_refused(tmp_path: Path) -> None:
    with only_supervisor(tmp_path), pytest.raises(UsageError, match="already runs"), only_supervisor(tmp_path):
        pass
    with only_supervisor(tmp_path):  # free again
        pass


def test_a_reader_never_sees_half_a_state(tmp_path: Path) -> None:
    state, stop, seen = run_state(DEAD), threading.Event(), list[object]()
    write_state(tmp_path, state)

    def read() -> None:
        while not stop.is_set():
            seen.append(msgspec.json.decode(state_path(tmp_path).read_bytes(), type=RunState))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(200):
        write_state(tmp_path, state)
    stop.set()
    reader.join()
    assert seen and set(map(type, seen)) == {RunState}
