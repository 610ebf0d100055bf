"""Errors over HTTP as problem details (RFC 9457), saying what to do and never what was sent.

No answer echoes a value, a key of an object or an unknown field's name: any of them may be the
identifier of a person. No answer carries a stack trace.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lethe_runtime.database_away import reason_of
from lethe_runtime.logging import error_class, places

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:lethe:problem:"

_log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with what was sent."""

    pointer: str = Field(description="JSON pointer to the value; `*` stands for a name you sent.")
    code: str = Field(description="Stable short code, e.g. `missing` or `unknown_field`.")
    detail: str = Field(description="What is wrong, without the value.")


class ProblemDocument(BaseModel):
    """What went wrong, as RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What kind of problem; stable, made for programs.")
    title: str = Field(description="The kind of problem in words; the same for every occurrence.")
    status: int = Field(description="The HTTP status again.")
    detail: str | None = Field(default=None, description="What happened this time, without values.")
    errors: list[FieldError] | None = Field(
        default=None, description="What is wrong, field by field."
    )


class Problem(Exception):  # noqa: N818 - it is an answer, and RFC 9457 names it so
    """An answer that is an error. Everything in it is shown to the caller.

    Args:
        status: the HTTP status.
        slug: the last part of `type`, e.g. `unknown-key`.
        title: the kind of problem in words.
        detail: what happened this time; must not quote what was sent.
        errors: what is wrong, field by field.
        headers: headers of the answer.
        extensions: further members of the document.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **extensions: object,
    ) -> None:
        super().__init__(slug)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extensions = extensions

    def response(self) -> JSONResponse:
        """Render the answer."""
        content: dict[str, object] = {
            **self.extensions,
            "type": f"{TYPE_PREFIX}{self.slug}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail is not None:
            content["detail"] = self.detail
        if self.errors:
            content["errors"] = [error.model_dump() for error in self.errors]
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


def install(app: FastAPI, *, unavailable: tuple[type[Exception], ...] = ()) -> None:
    """Make every error of `app` a problem, in its answers and in its OpenAPI description.

    Args:
        app: the application.
        unavailable: errors that mean "a server we need is away": 503 with Retry-After.
    """
    app.add_middleware(_Unexpected)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    for error in unavailable:
        app.add_exception_handler(error, _on_unavailable)
    _describe(app)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document problem answers for a route's `responses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def field_errors(
    errors: Iterable[Mapping[str, Any]], *, known: frozenset[str] | None = None
) -> list[FieldError]:
    """Turn pydantic's errors into ours.

    Args:
        errors: what pydantic found (`ValidationError.errors`).
        known: names that may be repeated in a pointer; any other name becomes `*`. None: all may.
    """
    return [_field_error(error, known) for error in errors]


_WORDS: Final = {
    "missing": ("missing", "is missing"),
    "extra_forbidden": ("unknown_field", "there is no such field"),
    "uuid_parsing": ("not_a_uuid", "is not a UUID"),
}
"""Codes of our own, and words where pydantic's would repeat a part of the value."""


def _field_error(error: Mapping[str, Any], known: frozenset[str] | None) -> FieldError:
    kind = str(error["type"])
    code, detail = _WORDS.get(kind, (kind, str(error["msg"]).removeprefix("Value error, ")))
    parts = list(error["loc"])
    if kind == "extra_forbidden" and parts:
        parts[-1] = "*"
    shown = (
        str(part) if isinstance(part, int) or known is None or part in known else "*"
        for part in parts
    )
    return FieldError(pointer="".join(f"/{part}" for part in shown), code=code, detail=detail)


def invalid(errors: Sequence[FieldError]) -> Problem:
    """Make the answer to a request that is well-formed and not acceptable."""
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid-request",
        "The request is not valid",
        "See errors for what to change.",
        errors=errors,
    )


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - Starlette calls it for nothing else
    return error.response()


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    return invalid(field_errors(error.errors())).response()


async def _on_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-").replace("'", "")
    return Problem(status, slug, status.phrase, headers=error.headers).response()


async def _on_unavailable(_request: Request, error: Exception) -> JSONResponse:
    _log.warning("request not served", error_class=reason_of(error))
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "A server behind this one is away",
        # The connection may have gone after the commit and before its answer.
        "It may have been accepted or not; send the same again, with its Idempotency-Key if it has"
        " one: that is always safe.",
        headers={"Retry-After": "5"},
    ).response()


class _Unexpected:
    """Answers what nobody foresaw with a bare 500 and one log line without the error's text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            route = scope.get("route")
            _log.error(
                "request failed",
                method=scope["method"],
                route=getattr(route, "path", None),
                error_class=error_class(error),
                error_at=places(error.__traceback__),
            )
            if started:
                raise
            problem = Problem(500, "internal", "Something went wrong here", "It is logged.")
            await problem.response()(scope, receive, send)


def _describe(app: FastAPI) -> None:
    """Add the problem document to the schemas that `responses` refers to."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if ProblemDocument.__name__ not in schemas:
            schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[ProblemDocument.__name__] = schema
        return document

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend it
