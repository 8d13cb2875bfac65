"""A running Triton as versions.py sees it: explicit loads, and a real inference as the canary."""

import asyncio

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from offline.release.listing import served_versions
from schemas.clients.access import Server, triton_headers, triton_options, triton_settings
from schemas.clients.triton import as_keenstream_error

LOAD_SECONDS = 300.0  # a language model on a busy machine


class TritonModelServer:
    """One model of one server."""

    def __init__(self, server: Server, model: str, *, deadline_seconds: float = 60.0) -> None:
        self._server, self._model, self._deadline_seconds = server, model, deadline_seconds

    def load(self) -> None:
        """Raises KeenstreamError when the load fails; what was served before is then served on."""
        with InferenceServerClient(**triton_options(self._server)) as client:
            try:
                client.load_model(self._model, headers=triton_headers(self._server), client_timeout=LOAD_SECONDS)
            except InferenceServerException as error:
                raise as_keenstream_error(error, "triton", triton_settings(self._server).grpc_address) from error

    def versions(self) -> tuple[str, str]:
        return asyncio.run(served_versions(self._model, self._server, self._deadline_seconds))
