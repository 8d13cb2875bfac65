"""`keenstream models release | promote | rollback | list` against a real Triton that is asked all the time.

One server with a tiny student of random weights; a thread asks it without a pause and keeps every answer. The tests run
in their order: each goes on with what the one before has promoted.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from keenstream.commands import application
from keenstream.stack.triton import triton_server
from keenstream.stack.triton_probe import probe_triton
from offline.release.models import ModelPaths
from offline.release.releases import HeldOut, read_release, release_run, releases_below
from offline.training import gates
from offline.training.material import SIGNALS
from schemas.errors import KeenstreamError, UsageError
from schemas.names import Model, Tensor
from tests.integration.model_home import finished_run, make_home, prepared_examples
from tests.keenstream.stack.programs import eventually

pytestmark = pytest.mark.stack

BASE = ("tiny-base-1", "examples-1")
PROMPT = "News read: storm coast; storm wind\nNews searches:"


class Caller(threading.Thread):
    """Asks without a pause and without a second try until it is stopped; the version of each answer, or its error."""

    def __init__(self, grpc: str) -> None:
        super().__init__(daemon=True)
        self._grpc, self._over = grpc, threading.Event()
        self.told: list[str] = []

    def run(self) -> None:
        request = InferInput(Tensor.PROMPT, [1, 1], "BYTES")
        request.set_data_from_numpy(np.array([[PROMPT.encode()]], dtype=object))
        with InferenceServerClient(self._grpc) as client:
            while not self._over.is_set():
                self.told.append(self._ask(client, request))

    def _ask(self, client: InferenceServerClient, request: InferInput) -> str:
        try:
            answer = client.infer(Model.STUDENT, [request], client_timeout=30.0)
        except InferenceServerException as error:
            return f"failed: {error}"
        version: bytes = answer.as_numpy(Tensor.MODEL_VERSION)[0, 0]
        return version.decode()

    def end(self) -> None:
        self._over.set()
        self.join(60)

    def wait_for(self, version: str) -> None:
        eventually(lambda: version in self.told[-2:])


class World(msgspec.Struct):
    """A state folder, its server, and who asks it."""

    home: Path
    examples: Path
    runs: Path
    grpc: str
    caller: Any

    def cli(self, *arguments: str) -> Any:
        """What the command prints as JSON; raises its error."""
        environment = {"KEENSTREAM_HOME": str(self.home), "KEENSTREAM_TRITON_GRPC_ADDRESS": self.grpc}
        result = CliRunner().invoke(application(), ["models", *arguments, "--json"], env=environment)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def served(self) -> tuple[str, str, str]:
        """Folder, weights and prompt, as `keenstream models list` says them."""
        (row,) = [row for row in self.cli("list") if row["state"] == "READY"]
        return row["version"], row["model_version"], row["prompt_version"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, model_repository: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("swap")
    home = make_home(folder, model_repository.parent / "embedder")
    paths = ModelPaths.below(home)
    for number in (1, 2):
        finished_run(folder / "runs" / str(number), paths.student_hf, seed=number)
    examples = prepared_examples(folder)
    models = (Model.STUDENT,)
    with triton_server(
        folder / "triton", paths.repository, models, probe=lambda at: probe_triton(at, models)
    ) as server:
        caller = Caller(server.grpc)
        caller.start()
        yield World(home, examples, folder / "runs", server.grpc, caller)
        caller.end()


def test_a_run_is_released_and_not_yet_served(world: World) -> None:
    made = world.cli(
        "release", str(world.runs / "1"), "--examples", str(world.examples), "--lists", "8",
        "--overlap", "0", "--precision", "f32",
    )  # fmt: skip
    assert made["number"] == 1
    assert made["agreement"]["lists"] == 8
    assert made["scores"]["signals_recall_at_10"] > made["scores"]["held_out"]  # random weights find nothing
    assert world.served() == ("1", *BASE)


def test_what_does_not_beat_the_signals_is_not_promoted(world: World) -> None:
    with pytest.raises(UsageError, match=r"release 1 finds .* it earns nothing; use --force"):
        world.cli("promote", "1")
    assert world.served() == ("1", *BASE)


def test_promotions_and_rollbacks_fail_no_request(world: World) -> None:
    held_out = HeldOut(prompts=[PROMPT] * 4, score=lambda lists: {gates.HELD_OUT: 0.3, SIGNALS: 0.2})
    releases = releases_below(world.home / "models")
    release_run(world.runs / "2", releases, held_out, now_ms=1, progress=lambda step: None, least_overlap=0.0)
    world.caller.wait_for(BASE[0])
    world.cli("promote", "1", "--force")
    assert world.served() == ("2", "keenstream-student-1", "bare-1")
    world.caller.wait_for("keenstream-student-1")
    promoted = world.cli("promote", "2")
    assert (promoted["version"], promoted["forced"]) == (3, False)
    world.caller.wait_for("keenstream-student-2")
    assert world.cli("rollback")["model_version"] == "keenstream-student-1"
    world.caller.wait_for("keenstream-student-1")
    assert world.cli("rollback") is None
    world.caller.wait_for(BASE[0])
    assert world.served() == ("1", *BASE)
    assert [path.name for path in (world.home / "models" / "repository" / Model.STUDENT).glob("[0-9]*")] == ["1"]
    assert set(world.caller.told) == {BASE[0], "keenstream-student-1", "keenstream-student-2"}


def test_weights_that_do_not_load_leave_what_was_served(world: World) -> None:
    served = releases_below(world.home / "models") / "2" / "served"
    (served / "tokenizer.json").unlink()  # the name goes, the bytes that a promotion linked stay
    (served / "tokenizer.json").write_text("{}")
    assert read_release(served.parents[1], 2).number == 2
    with pytest.raises(KeenstreamError, match="release 2 was taken back, what was served before is served"):
        world.cli("promote", "2", "--force")
    assert world.served() == ("1", *BASE)
    world.caller.wait_for(BASE[0])
    assert set(world.caller.told) == {BASE[0], "keenstream-student-1", "keenstream-student-2"}


def test_a_release_of_another_prompt_is_refused(world: World) -> None:
    record = releases_below(world.home / "models") / "1" / "release.json"
    record.write_bytes(record.read_bytes().replace(b'"bare-1"', b'"bare-0"'))
    with pytest.raises(UsageError, match="trained on the prompt 'bare-0'"):
        world.cli("promote", "1", "--force")
    assert world.served() == ("1", *BASE)
