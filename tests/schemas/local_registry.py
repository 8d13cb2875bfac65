"""A schema registry on 127.0.0.1 that answers as Confluent's does, and misbehaves when it is told to."""

import base64
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from schemas.avro.compatibility import incompatibilities

JSON = "application/vnd.schemaregistry.v1+json"
FIRST_ID = 100


class LocalRegistry:
    """Subjects and ids in memory. `fault` is a status, `garbage` or None; `slow_seconds` delays each answer."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.reset()
        server.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def reset(self) -> None:
        """As it was at its start."""
        self.subjects: dict[str, list[int]] = {}
        self.texts: dict[int, str] = {}
        self.types: dict[int, str] = {}
        self.references: dict[int, list[dict[str, str]]] = {}
        self.fault: int | str | None = None
        self.faults_left = -1  # how many answers the fault spoils; -1 = all
        self.slow_seconds = 0.0
        self.credentials: tuple[str, str] | None = None
        self.asked: list[str] = []

    def add(self, subject: str, text: str) -> int:
        """Register `text` without HTTP."""
        known = next((number for number, stored in self.texts.items() if stored == text), None)
        number = FIRST_ID + len(self.texts) if known is None else known
        self.texts[number] = text
        if number not in self.subjects.setdefault(subject, []):
            self.subjects[subject].append(number)
        return number

    def _answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        time.sleep(self.slow_seconds)
        if self.faults_left and self.fault is not None:
            self.faults_left -= 1
            return self._spoilt()
        if self.credentials and request.headers.get("authorization") != _basic(*self.credentials):
            return _refuse(401, 401, "Unauthorized")
        body = json.loads(request.data or b"{}")
        for method, pattern, handle in self._routes():
            found = re.fullmatch(pattern, request.path)
            if found and request.method == method:
                answer: Response = handle(body, *found.groups())
                return answer
        return _refuse(404, 404, "HTTP 404 Not Found")

    def _spoilt(self) -> Response:
        if self.fault == "garbage":
            return Response("<html>welcome to the intranet</html>", content_type="text/html")
        return _refuse(int(self.fault or 500), 50001, "Error in the backend data store")

    def _routes(self) -> Iterator[tuple[str, str, Any]]:
        yield "GET", r"/schemas/ids/(\d+)", self._schema
        yield "POST", r"/subjects/([^/]+)", self._find
        yield "POST", r"/subjects/([^/]+)/versions", self._register
        yield "POST", r"/compatibility/subjects/([^/]+)/versions/latest", self._compare

    def _schema(self, _: Any, number: str) -> Response:
        text = self.texts.get(int(number))
        if text is None:
            return _refuse(404, 40403, f"Schema {number} not found")
        kind, references = self.types.get(int(number)), self.references.get(int(number))
        extra = {**({"schemaType": kind} if kind else {}), **({"references": references} if references else {})}
        return _json({"schema": text, **extra})

    def _find(self, body: Any, subject: str) -> Response:
        if subject not in self.subjects:
            return _refuse(404, 40401, f"Subject '{subject}' not found.")
        numbers = self.subjects[subject]
        for version, number in enumerate(numbers, start=1):
            if self.texts[number] == body["schema"]:
                return _json({"subject": subject, "id": number, "version": version, "schema": body["schema"]})
        return _refuse(404, 40403, "Schema not found")

    def _register(self, body: Any, subject: str) -> Response:
        newest = self._newest(subject)
        if newest and (reasons := _conflicts(body["schema"], newest)):
            return _refuse(409, 409, f"Schema being registered is incompatible: {reasons[0]}")
        return _json({"id": self.add(subject, body["schema"])})

    def _compare(self, body: Any, subject: str) -> Response:
        newest = self._newest(subject)
        if newest is None:
            return _refuse(404, 40401, f"Subject '{subject}' not found.")
        reasons = _conflicts(body["schema"], newest)
        return _json({"is_compatible": not reasons, "messages": reasons})

    def _newest(self, subject: str) -> str | None:
        return self.texts[self.subjects[subject][-1]] if subject in self.subjects else None


@contextmanager
def local_registry(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[LocalRegistry]:
    server = HTTPServer(host="127.0.0.1", port=port, ssl_context=tls, threaded=True)
    server.start()
    try:
        yield LocalRegistry(server)
    finally:
        server.stop()


def _conflicts(text: str, newest: str) -> list[str]:
    """As the registry's level FULL."""
    return [*incompatibilities(newest, text), *incompatibilities(text, newest)]


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, content_type=JSON)


def _refuse(status: int, code: int, message: str) -> Response:
    return _json({"error_code": code, "message": message}, status)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
