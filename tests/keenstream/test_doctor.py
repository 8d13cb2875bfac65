import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keenstream import doctor
from keenstream.doctor import GIB, Check
from keenstream.stack.folders import demo_folder
from keenstream.stack.state import ProcessIdentity, RunState, write_state
from schemas.config import Config, Kafka


@pytest.mark.parametrize(
    ("first_line", "level"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "ok"),
        ('openjdk version "21" 2023-09-19', "ok"),
        ('openjdk version "11.0.27" 2025-04-15', "missing"),
        ('java version "1.8.0_292"', "missing"),
        ("", "missing"),
    ],
)
def test_java_17_or_newer_is_wanted(first_line: str, level: str) -> None:
    assert doctor.check_java(first_line).level == level


@pytest.mark.parametrize("variable", ["JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"])
def test_options_for_java_in_the_environment_do_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "-XX:TieredStopAtLevel=1")
    (java,) = (check for check in doctor.run_checks(tmp_path) if check.name == "java")
    assert java.ok, java.found


@pytest.mark.parametrize(("free", "level"), [(8 * GIB, "ok"), (3 * GIB, "warning"), (GIB, "missing")])
def test_little_memory_is_told(free: int, level: str) -> None:
    assert doctor.check_memory(free).level == level


def test_maven_is_not_needed_when_the_jars_are_here() -> None:
    assert doctor.check_maven("", jars=True).ok
    assert not doctor.check_maven("", jars=False).ok


def test_versions_are_compared_with_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# made by uv\nfaust-streaming==0.15.3\nnumpy==1.26.4\npsutil==7.2.2\n")
    installed = {"faust-streaming": "0.15.2", "numpy": "1.26.4"}
    check = doctor.check_packages(lock, lambda name: installed.get(name, ""))
    assert check.level == "missing"
    assert check.found == "2 differ: faust-streaming 0.15.2 (not 0.15.3), psutil missing (not 7.2.2)"


def test_a_taken_port_is_told_with_the_setting_that_moves_it() -> None:
    ports = doctor.local_ports(Config(kafka=Kafka(bootstrap="127.0.0.1:9999")))
    checks = {
        check.name: check for check in doctor.check_ports(ports, running=False, is_free=lambda port: port != 9999)
    }
    assert checks["port 9999"].level == "warning"
    assert "kafka.bootstrap" in checks["port 9999"].mend
    assert checks["port 19530"].level == "ok"


def test_ports_of_the_running_stack_are_no_trouble() -> None:
    checks = doctor.check_ports({"kafka.bootstrap": 9092}, running=True, is_free=lambda port: False)
    assert [check.level for check in checks] == ["ok"]


def stack_state(supervisor: ProcessIdentity) -> RunState:
    return RunState(run_id="run", supervisor=supervisor, environment={}, parts=())


@pytest.mark.parametrize("folder", [Path(), demo_folder(Path())], ids=["stack", "kept demo"])
def test_a_running_stack_holds_its_ports_rightly_and_a_dead_one_is_told(tmp_path: Path, folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        config = Config(kafka=Kafka(bootstrap=f"127.0.0.1:{port}"))

        def found(supervisor: ProcessIdentity) -> dict[str, Check]:
            write_state(tmp_path / folder, stack_state(supervisor))
            return {check.name: check for check in doctor.run_checks(tmp_path, config)}

        alive = found(ProcessIdentity.of(os.getpid()))
        assert (alive[f"port {port}"].level, alive["last run"].level) == ("ok", "ok")
        dead = found(ProcessIdentity(pid=os.getpid(), started=1.0))  # the id of a process that ended, used again
        assert (dead[f"port {port}"].level, dead["last run"].level) == ("warning", "warning")


def test_a_broker_elsewhere_needs_no_port_here() -> None:
    assert "kafka.bootstrap" not in doctor.local_ports(Config(kafka=Kafka(bootstrap="broker.internal:9092")))


def test_models_that_are_not_built_are_told(tmp_path: Path) -> None:
    assert "student, embedder" in doctor.check_models(tmp_path).found
    for model in ("student", "embedder"):
        (tmp_path / model / "1").mkdir(parents=True)
        (tmp_path / model / "1" / "model.py").touch()
    assert doctor.check_models(tmp_path).level == "ok"


def test_whatever_is_not_ok_says_how_to_mend_it(tmp_path: Path) -> None:
    for check in doctor.run_checks(tmp_path):
        assert check.level == "ok" or check.mend


def test_the_command_prints_json_and_its_exit_code_says_whether_something_is_missing() -> None:
    done = subprocess.run([sys.executable, "-m", "keenstream.cli", "doctor", "--json"], capture_output=True, text=True)
    checks = [Check(**check) for check in json.loads(done.stdout)]
    assert done.returncode == (0 if all(check.ok for check in checks) else 1)
    assert {"java", "memory", "packages", "models"} <= {check.name for check in checks}
