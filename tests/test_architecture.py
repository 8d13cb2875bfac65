"""Design rule 5 (imports run one way) and the size budget, kept by reading the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("schemas", "stream", "offline", "triton_models", "keenstream")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "stream": {"schemas", "stream"},
    "offline": {"schemas", "offline"},
    "triton_models": set(),  # model.py and what lies beside it: Triton's stub sees nothing of ours
    "keenstream": {"schemas", "stream", "offline", "keenstream", "bench"},
}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "tools"}


def sources(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def crossings(package: str, source: str) -> set[str]:
    return (imported(source) & {*PACKAGES, "tests", "bench"}) - MAY_IMPORT[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    found = {path.relative_to(ROOT): crossings(package, path.read_text()) for path in sources(package)}
    assert found, f"no source in {package}"
    assert {path: names for path, names in found.items() if names} == {}


def test_a_planted_crossing_is_seen() -> None:
    assert crossings("stream", "def f():\n    from offline.simulate import x\n") == {"offline"}
    assert crossings("schemas", "import stream.api as api\n") == {"stream"}


@pytest.mark.parametrize("package", [*PACKAGES, "bench"])
def test_files_and_functions_stay_readable(package: str) -> None:
    long: list[str] = []
    for path in sources(package):
        text = path.read_text()
        if text.count("\n") > MOST_LINES:
            long.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.name} has {lines} lines")
    assert long == []


def test_names_say_something() -> None:
    assert [path for package in PACKAGES for path in sources(package) if path.stem in VAGUE] == []


def test_topics_and_collections_are_named_once() -> None:
    names = {"user-events", "query-requests", "query-lists", "dead-letters", "user_queries"}
    elsewhere = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in ("schemas", "stream", "offline")
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names and path.name != "names.py"
    ]
    assert elsewhere == []
