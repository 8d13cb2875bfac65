"""What this machine lacks to run the stack, and how to mend each thing; `keenstream doctor` prints it."""

import ctypes
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import psutil

from keenstream.stack.folders import cache_folder, demo_folder, state_folder
from keenstream.stack.ports import holder, is_free
from keenstream.stack.state import live_state, read_state
from schemas.config import Config
from schemas.names import Model

Level = Literal["ok", "warning", "missing"]

GIB = 2**30
LOCK = Path(__file__).parents[1] / "requirements.lock"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One finding; `mend` says what to do when the level is not ok. A warning does not keep the stack from running."""

    name: str
    level: Level
    found: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "missing"


def run_checks(home: Path | None = None, config: Config | None = None) -> list[Check]:
    """Every check on this machine, in the order in which to mend."""
    home, config = home or state_folder(), config or Config()
    stacks = (home, demo_folder(home))  # a demo that was kept up is a stack like any other
    live = [stack for stack in stacks if live_state(stack)]
    return [
        check_python(sys.version_info[:2], _has_libpython()),
        check_java(_first_line(["java", "-version"])),
        check_maven(_first_line(["mvn", "--version"]), jars=any(cache_folder().glob("kafka-jars-*"))),
        check_memory(psutil.virtual_memory().available),
        check_disk(shutil.disk_usage(_existing(home)).free),
        check_shared_memory(shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0),
        check_setpriv(shutil.which("setpriv")),
        check_packages(LOCK, _installed),
        check_servers(cache_folder()),
        check_models(home / "models" / "repository"),
        *check_ports(local_ports(config), running=bool(live), is_free=is_free),
        check_run(stale=any(read_state(stack) for stack in stacks if stack not in live)),
    ]


def check_python(found: tuple[int, int], libpython: bool) -> Check:
    text = f"{found[0]}.{found[1]}" + ("" if libpython else ", without libpython3.11.so")
    mend = "use Python 3.11 with its shared library (Debian: apt-get install libpython3.11); then `make setup`"
    return Check(name="python", level="ok" if found == (3, 11) and libpython else "missing", found=text, mend=mend)


def check_java(first_line: str) -> Check:
    match = re.search(r'version "(\d+)', first_line)
    level: Level = "ok" if match and int(match[1]) >= 17 else "missing"
    mend = "install Java 17 or newer for Kafka (Debian: apt-get install openjdk-17-jre-headless)"
    return Check(name="java", level=level, found=first_line or "not found", mend=mend)


def check_maven(first_line: str, jars: bool) -> Check:
    level: Level = "ok" if first_line or jars else "missing"
    found = first_line or ("not found, but the Kafka jars are here" if jars else "not found")
    return Check(name="maven", level=level, found=found, mend="install Maven (Debian: apt-get install maven)")


def check_memory(available: int) -> Check:
    mend = "end other programs: Kafka, Triton, Milvus and the workers take about 4 GiB together"
    return Check(name="memory", level=_by_size(available, 4 * GIB, 2 * GIB), found=_gib(available) + " free", mend=mend)


def check_disk(free: int) -> Check:
    mend = "free some space, or set KEENSTREAM_HOME to a folder on another disk"
    return Check(name="disk", level=_by_size(free, 5 * GIB, GIB), found=_gib(free) + " free", mend=mend)


def check_shared_memory(free: int) -> Check:
    mend = "enlarge /dev/shm for Triton's models (mount -o remount,size=1g /dev/shm; docker: --shm-size=1g)"
    return Check(name="/dev/shm", level=_by_size(free, GIB // 4, GIB // 16), found=_gib(free) + " free", mend=mend)


def check_setpriv(path: str | None) -> Check:
    mend = (
        "install util-linux: without it a killed supervisor leaves servers running until the next `stack up` or `down`"
    )
    return Check(name="setpriv", level="ok" if path else "warning", found=path or "not found", mend=mend)


def check_packages(lock: Path, installed: Callable[[str], str]) -> Check:
    """Every locked version against what is installed."""
    if not lock.is_file():
        return Check(name="packages", level="warning", found="no requirements.lock", mend="run from a checkout")
    wanted = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text("utf-8"), re.MULTILINE))
    wrong = [
        f"{name} {installed(name) or 'missing'} (not {want})"
        for name, want in wanted.items()
        if installed(name) != want
    ]
    found = f"{len(wanted)} as locked" if not wrong else f"{len(wrong)} differ: {', '.join(wrong[:5])}"
    return Check(name="packages", level="missing" if wrong else "ok", found=found, mend="run `make setup`")


def check_servers(cache: Path) -> Check:
    wanted = {"Kafka jars": "kafka-jars-*", "Milvus": "milvus-[0-9]*", "Triton backends": "triton-backends-*"}
    lacking = [name for name, pattern in wanted.items() if not any(cache.glob(pattern))]
    found = f"not unpacked yet: {', '.join(lacking)}" if lacking else "fetched and unpacked"
    return Check(name="servers", level="warning" if lacking else "ok", found=found, mend="run `make setup`")


def check_models(repository: Path) -> Check:
    lacking = [name for name in (Model.STUDENT, Model.EMBEDDER) if not any(repository.glob(f"{name}/*/model.py"))]
    found = f"not built yet: {', '.join(lacking)}" if lacking else "built"
    return Check(name="models", level="warning" if lacking else "ok", found=found, mend="run `keenstream models build`")


def local_ports(config: Config) -> dict[str, int]:
    """The ports of this machine that the settings name."""
    addresses = {
        "kafka.bootstrap": config.kafka.bootstrap,
        "triton.grpc_address": config.triton.grpc_address,
        "milvus.uri": config.milvus.uri,
        "api.port": f"{config.api.host}:{config.api.port}",
    }
    split = {name: urlsplit(text if "://" in text else f"//{text.split(',')[0]}") for name, text in addresses.items()}
    return {
        name: part.port for name, part in split.items() if part.hostname in ("127.0.0.1", "localhost") and part.port
    }


def check_ports(ports: Mapping[str, int], running: bool, is_free: Callable[[int], bool]) -> Iterable[Check]:
    for setting, port in ports.items():
        taken = not running and not is_free(port)
        yield Check(
            name=f"port {port}",
            level="warning" if taken else "ok",
            found=f"held by {holder(port)}" if taken else "held by the running stack" if running else "free",
            mend=f"end it, or set {setting}; left at its default the stack takes another port by itself",
        )


def check_run(stale: bool) -> Check:
    found = "an earlier run ended without cleaning up" if stale else "nothing left behind"
    return Check(name="last run", level="warning" if stale else "ok", found=found, mend="run `keenstream stack down`")


def _by_size(found: int, enough: int, least: int) -> Level:
    return "ok" if found >= enough else "warning" if found >= least else "missing"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def _first_line(argv: list[str]) -> str:
    """What a program says first, on whichever stream; empty when it is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)  # Maven colours its version
    # Java first repeats the options that it finds in the environment
    lines = [line for line in text.strip().split("\n") if "Picked up J" not in line]
    return lines[0] if lines and done.returncode == 0 else ""


def _has_libpython() -> bool:
    name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    try:
        ctypes.CDLL(name)
    except OSError:
        return (Path(sysconfig.get_config_var("LIBDIR") or "/") / name).exists()
    return True


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
