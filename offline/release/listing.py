"""What a Triton has loaded: its own index, and the versions that each model gives in a real answer."""

import msgspec
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from schemas.clients.access import Server, triton_headers, triton_options, triton_settings
from schemas.clients.models import Completion
from schemas.clients.triton import TritonCleaner, TritonEmbedder, TritonStudent, as_keenstream_error
from schemas.errors import KeenstreamError
from schemas.names import Model

PROBE = "News searches:"


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the server's repository."""

    name: str
    version: str  # the folder in the repository
    state: str  # READY, or why not; "DEAD" when Triton says ready and the model does not answer
    model_version: str = ""  # of the weights, as the model itself says
    prompt_version: str = ""
    reason: str = ""


async def list_models(server: Server, *, deadline_seconds: float = 10.0) -> list[LoadedModel]:
    """The models that `server` knows, sorted; raises Unavailable when no server answers."""
    headers, client = triton_headers(server), InferenceServerClient(**triton_options(server))
    try:
        index = await client.get_model_repository_index(headers=headers, client_timeout=deadline_seconds)
    except InferenceServerException as error:
        raise as_keenstream_error(error, "triton", triton_settings(server).grpc_address) from error
    finally:
        await client.close()
    entries = sorted(index.models, key=lambda entry: (entry.name, entry.version))
    return [await _asked(entry, server, deadline_seconds) for entry in entries]


async def _asked(entry: object, server: Server, deadline_seconds: float) -> LoadedModel:
    """The entry of Triton's index with what the model says of itself."""
    name, state = getattr(entry, "name", ""), getattr(entry, "state", "")
    model = LoadedModel(
        name=name, version=getattr(entry, "version", ""), state=state, reason=getattr(entry, "reason", "")
    )
    if state != "READY":
        return msgspec.structs.replace(model, state=state or "NOT LOADED")
    try:
        weights, prompt = await served_versions(name, server, deadline_seconds)
    except KeenstreamError as error:
        return msgspec.structs.replace(model, state="DEAD", reason=str(error))
    return msgspec.structs.replace(model, model_version=weights, prompt_version=prompt)


async def served_versions(name: str, server: Server, deadline_seconds: float) -> tuple[str, str]:
    """What a served model says of itself in a real answer: version of its weights, and of its prompt."""
    if name == Model.EMBEDDER:
        embedder = TritonEmbedder(server, deadline_seconds=deadline_seconds)
        try:
            return await embedder.version(), ""
        finally:
            await embedder.close()
    if name == Model.CLEANER:
        cleaner = TritonCleaner(server, deadline_seconds=deadline_seconds)
        try:
            return (await cleaner.judge([PROBE])).model_version, ""
        finally:
            await cleaner.close()
    if name != Model.STUDENT:
        return "", ""
    student = TritonStudent(server, deadline_seconds=deadline_seconds)
    try:
        answer = (await student.write([PROBE]))[0]
    finally:
        await student.close()
    if isinstance(answer, Completion):
        return answer.model_version, answer.prompt_version
    raise answer
