"""HTTP as every service does it: health, readiness, metrics, a body limit, JSON bodies, a server.

The server listens until the stop event and then finishes the requests it has; signals are none of
its business (`lifecycle` owns them). It writes no access log, because an access line is a URL.
"""

import asyncio
import contextlib
import errno
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, TypeVar

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lethe_runtime import problems
from lethe_runtime.database import DatabaseProbe
from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.health import Dependency, Readiness
from lethe_runtime.problems import FieldError, Problem

JSON: Final = "application/json"
_CUT_OFF_SECONDS: Final = 2.0
"""How long before the end of a drain slow clients are cut off, for their requests to end."""

_log = structlog.get_logger(__name__)
_M = TypeVar("_M", bound=BaseModel)


class ListenError(LetheRuntimeError):
    """The address to listen on is taken or not ours."""


class ReadinessDocument(BaseModel):
    """Whether the service can do its work now, and what it is waiting for."""

    ready: bool
    dependencies: dict[str, Dependency]


def ops_router(readiness: Readiness, registry: CollectorRegistry) -> APIRouter:
    """Make the routes `/healthz`, `/readyz` and `/metrics`."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", summary="Is the process alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        summary="Can it do its work now",
        responses={503: {"model": ReadinessDocument, "description": "A dependency is away"}},
    )
    async def readyz(response: Response) -> ReadinessDocument:
        report = readiness.report()
        if not report.ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return ReadinessDocument(ready=report.ready, dependencies=dict(report.dependencies))

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def ops_app(service: str, readiness: Readiness, registry: CollectorRegistry) -> FastAPI:
    """Make the application of a service that has no API of its own."""
    app = FastAPI(title=f"Lethe {service}", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    app.include_router(ops_router(readiness, registry))
    return app


def migrated(probe: DatabaseProbe) -> Callable[[], Awaitable[None]]:
    """Make a FastAPI dependency that answers 503 until `probe` has seen the tables once.

    Later the database speaks for itself.
    """

    async def check() -> None:
        if not probe.migrated:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "unavailable",
                "The service is still waiting for its database",
                "Nothing was done; send the request again.",
                headers={"Retry-After": "5"},
            )

    return check


class BodyLimit:
    """Middleware that refuses a body of more than `limit` bytes with 413, declared or not.

    Nothing over the limit is ever held in memory. Add it to an app whose problems are installed.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            await self._too_large().response()(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._limit:
                    raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-large",
            "The body is too large",
            f"At most {self._limit} bytes are read.",
        )


def json_body(model: type[_M]) -> Callable[[Request], Awaitable[_M]]:
    """Make a FastAPI dependency that reads the body as one JSON `model`.

    Unlike a body parameter it runs in its turn, so a caller without a key learns nothing about its
    body. It answers 415 to another content type, 400 to malformed JSON, 422 to what it refuses, a
    name that stands twice in an object among it: two readers would take two values of it.
    Document the body with `json_request_body` beside it.
    """
    known = frozenset(_names(model.model_json_schema()))

    async def dependency(request: Request) -> _M:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != JSON:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The content type is not supported",
                f"Send the body as {JSON}.",
                headers={"Accept": JSON},
            )
        body = await request.body()
        try:
            read = model.model_validate_json(body)
        except ValidationError as refused:
            errors = refused.errors(include_url=False, include_input=False, include_context=False)
        else:
            _refuse_repeated_names(body)
            return read
        if any(error["type"] == "json_invalid" for error in errors):
            raise Problem(HTTPStatus.BAD_REQUEST, "malformed-json", "The body is not JSON")
        raise problems.invalid(problems.field_errors(errors, known=known))

    return dependency


def _refuse_repeated_names(body: bytes) -> None:
    def once(pairs: list[tuple[str, object]]) -> None:
        if len(dict(pairs)) != len(pairs):
            detail = "a name stands twice in an object"
            raise problems.invalid([FieldError(pointer="", code="repeated_name", detail=detail)])

    json.loads(body, object_pairs_hook=once)


def json_request_body(model: type[BaseModel]) -> dict[str, Any]:
    """Describe the body of a route that uses `json_body(model)`, for its `openapi_extra`."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _names(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for part in schema.values():
            yield from _names(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _names(part)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def disconnect(self) -> int:
        """Drop every connection, and say how many; their requests see that the client is gone."""
        connections = list(self.server_state.connections)
        for connection in connections:
            connection.transport.abort()
        return len(connections)

    def cancel(self) -> None:
        """Cancel every request that goes on all the same."""
        for task in self.server_state.tasks:
            task.cancel()


class HttpServer:
    """Serves an application on `host:port`; port 0 takes a free one, then told by `port`.

    Args:
        app: the ASGI application.
        host: address to listen on.
        port: port to listen on.
        drain_seconds: within which it ends once it is told to: requests may finish, and what is
            left a little before (two seconds, at most half of it) is cut off.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, drain_seconds: float) -> None:
        self._app = app
        self._host = host
        self._drain_seconds = drain_seconds
        self.port = port
        self.listening = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish what was begun, as far as its clients keep up.

        Raises:
            ListenError: the address cannot be listened on.
        """
        listener = self._listen()
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
        )
        server = _Server(config)
        _log.info("listening", host=self._host, port=self.port)
        with listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            stopping = asyncio.create_task(stop.wait())
            self.listening.set()
            try:
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                server.should_exit = True
                await self._drain(server, serving)
            finally:
                stopping.cancel()
                serving.cancel()

    async def _drain(self, server: _Server, serving: asyncio.Task[None]) -> None:
        left = min(_CUT_OFF_SECONDS, self._drain_seconds / 2)
        await asyncio.wait({serving}, timeout=self._drain_seconds - left)
        if not serving.done():
            _log.warning("clients cut off", connections=server.disconnect())
            # A request whose client is gone ends by itself, unless it waits for something else.
            await asyncio.wait({serving}, timeout=left / 2)
            server.cancel()
        await serving

    def _listen(self) -> socket.socket:
        try:
            family = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((self._host, self.port), family=family, backlog=1024)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {self._host}:{self.port}; {_why(error)}"
            ) from error
        listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        return listener


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process does: each on a machine needs a ..._HTTP_PORT of its own"
    return f"look at ..._HTTP_HOST and ..._HTTP_PORT ({error.strerror})"
