"""What comes in over HTTP: teams submit erasure requests and look at their own.

An answer of 202 is a promise: the request and its event are committed. The subject appears in no
answer, no log line and no URL.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Header, Response
from prometheus_client import CollectorRegistry
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictInt
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lethe_contracts.events import Regulation
from lethe_contracts.states import RequestState
from lethe_intake.domain import (
    Joined,
    KeyReused,
    Replayed,
    Request,
    Seal,
    Submission,
    SubmissionError,
    Taken,
    check_requested_at,
    check_unnamed,
)
from lethe_intake.metrics import Answer, IntakeMetrics
from lethe_intake.storage import IntakeStorage
from lethe_runtime import problems, tracing
from lethe_runtime.api_keys import Team, require
from lethe_runtime.database import TRANSIENT, DatabaseProbe
from lethe_runtime.health import Readiness
from lethe_runtime.http import BodyLimit, json_body, json_request_body, migrated, ops_router
from lethe_runtime.problems import FieldError, Problem, responses

PATH: Final = "/v1/erasure-requests"
WRITE: Final = "erasure:write"
READ: Final = "erasure:read"
SCOPES: Final = (WRITE, READ)

_ONE_LINE: Final = r"^[^\x00-\x1f\x7f]+$"

ShortText = Annotated[str, Field(min_length=1, max_length=256, pattern=_ONE_LINE)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class SubmissionBody(BaseModel):
    """One person to erase."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "subject": "acct-000017",
                    "reason": "account_withdrawn",
                    "requested_at": "2026-11-20T09:00:00+09:00",
                    "metadata": {"ticket": "CS-4711"},
                }
            ]
        },
    )

    subject: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="The person's account id, never reissued. Surrounding blanks do not count, "
        "case does. It is kept encrypted until the erasure is verified and is shown to nobody."
    )
    reason: ShortText = Field(description="Why, in a few words; must not name the person.")
    requested_at: AwareDatetime | None = Field(
        default=None,
        description="When the person asked, with an offset; now, if absent. The deadline counts "
        "from here.",
    )
    regulation: Regulation = Field(
        default="pipa", description="The law under which the person asked."
    )
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")],
                ShortText | StrictBool | StrictInt | Number | None,
            ],
            Field(max_length=32),
        ]
        | None
    ) = Field(
        default=None,
        description="Your own flat notes, given back with the request; must not name the person.",
    )


class RequestDocument(BaseModel):
    """An erasure request and where it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019c1f0e-6f5e-7c3a-9a51-2f0b8f6f9a10",
                    "state": "requested",
                    "reason": "account_withdrawn",
                    "regulation": "pipa",
                    "requested_at": "2026-11-20T00:00:00Z",
                    "accepted_at": "2026-11-20T00:00:01Z",
                    "deadline": "2026-11-25T00:00:00Z",
                    "closed_at": None,
                    "metadata": {"ticket": "CS-4711"},
                }
            ]
        }
    )

    id: UUID
    state: RequestState = Field(
        description="`verified`: a second scan found nothing left. `blocked`: something was left, "
        "and somebody is told."
    )
    reason: str
    regulation: Regulation
    requested_at: datetime
    accepted_at: datetime
    deadline: datetime = Field(description="The person must be erased by then.")
    closed_at: datetime | None = Field(description="When the eraser said its last word, if it has.")
    metadata: dict[str, Any] | None

    @classmethod
    def of(cls, request: Request) -> "RequestDocument":
        """Show a request."""
        return cls(
            id=request.request_id,
            state=request.state,
            reason=request.reason,
            regulation=request.regulation,
            requested_at=request.requested_at,
            accepted_at=request.accepted_at,
            deadline=request.deadline,
            closed_at=request.closed_at,
            metadata=dict(request.metadata) if request.metadata is not None else None,
        )


_LOCATION: Final = {
    "Location": {"description": "Where to look at the request.", "schema": {"type": "string"}}
}
_REPLAYED: Final = {
    "Idempotency-Replayed": {
        "description": "`true` if the key was used before for the same submission.",
        "schema": {"type": "string"},
    }
}


def create_app(
    *,
    storage: IntakeStorage,
    engine: AsyncEngine,
    seal: Seal,
    metrics: IntakeMetrics,
    probe: DatabaseProbe,
    readiness: Readiness,
    registry: CollectorRegistry,
    body_limit_bytes: int,
) -> FastAPI:
    """Make the application.

    Args:
        storage: where requests are kept.
        engine: the database, for API keys.
        seal: seals subjects.
        metrics: counts submissions.
        probe: knows whether the tables are there yet.
        readiness: what `/readyz` tells.
        registry: what `/metrics` tells.
        body_limit_bytes: the largest body that is read.
    """
    app = FastAPI(
        title="Lethe intake",
        version=version("lethe-intake"),
        summary="Erasure requests: submitted once, promised, done.",
        description="A `202` is a promise: once accepted, the erasure will happen or somebody is "
        "told. Errors are problem details (RFC 9457).",
        redoc_url=None,
    )
    problems.install(app, unavailable=TRANSIENT)
    app.add_middleware(BodyLimit, limit=body_limit_bytes)
    app.add_middleware(_CountUnaccepted, metrics=metrics)
    app.include_router(_requests(storage, engine, seal, metrics, probe))
    app.include_router(ops_router(readiness, registry))
    return app


def _requests(
    storage: IntakeStorage,
    engine: AsyncEngine,
    seal: Seal,
    metrics: IntakeMetrics,
    probe: DatabaseProbe,
) -> APIRouter:
    router = APIRouter(tags=["erasure requests"], dependencies=[Depends(migrated(probe))])
    writer = Depends(require(engine, WRITE))
    reader = Depends(require(engine, READ))
    body_of = Depends(json_body(SubmissionBody))

    @router.post(
        PATH,
        status_code=HTTPStatus.ACCEPTED,
        summary="Ask for a person's erasure",
        response_description="Accepted: it will happen, or somebody is told.",
        openapi_extra=json_request_body(SubmissionBody),
        responses={
            200: {
                "model": RequestDocument,
                "description": "Your team already has an open request for this person.",
                "headers": {**_LOCATION, **_REPLAYED},
            },
            202: {"headers": {**_LOCATION, **_REPLAYED}},
            **responses(400, 401, 403, 413, 415, 422, 503),
        },
    )
    async def submit(
        team: Annotated[Team, writer],
        body: Annotated[SubmissionBody, body_of],
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                pattern=r"^[\x21-\x7e]{1,255}$",
                description="Your name for this submission: sent again with the same body it is "
                "answered the same way, with another body it is refused with 422.",
            ),
        ] = None,
        traceparent: Annotated[str | None, Header(description="W3C trace context.")] = None,
    ) -> RequestDocument:
        submission = _submission(seal, team, body, idempotency_key, traceparent)
        outcome = await storage.submit(submission)
        match outcome:
            case KeyReused():
                raise Problem(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "idempotency-key-reused",
                    "The idempotency key was used for another submission",
                    "Nothing was accepted. Use a new key for a new submission.",
                )
            case Taken(request):
                metrics.answered("accepted")
            case Joined(request):
                metrics.answered("joined")
                response.status_code = HTTPStatus.OK
            case Replayed(request, joined):
                metrics.answered("replayed")
                response.headers["Idempotency-Replayed"] = "true"
                response.status_code = HTTPStatus.OK if joined else HTTPStatus.ACCEPTED
        response.headers["Location"] = f"{PATH}/{request.request_id}"
        return RequestDocument.of(request)

    @router.get(
        PATH + "/{request_id}",
        summary="Look at one request of your team",
        responses=responses(401, 403, 404, 422, 503),
    )
    async def look(team: Annotated[Team, reader], request_id: UUID) -> RequestDocument:
        request = await storage.find(team.name, request_id)
        if request is None:
            raise Problem(
                HTTPStatus.NOT_FOUND, "unknown-request", "Your team has no such erasure request"
            )
        return RequestDocument.of(request)

    return router


def _submission(
    seal: Seal, team: Team, body: SubmissionBody, key: str | None, traceparent: str | None
) -> Submission:
    try:
        subject = seal.close(body.subject)
    except ValueError as refused:
        raise _refusal(SubmissionError("subject", "not_a_subject", str(refused))) from None
    try:
        if body.requested_at is not None:
            check_requested_at(body.requested_at, datetime.now(UTC))
        notes = " ".join(str(part) for item in (body.metadata or {}).items() for part in item)
        check_unnamed(body.subject, reason=body.reason, metadata=notes)
    except SubmissionError as refused:
        raise _refusal(refused) from None
    return Submission(
        team=team.name,
        subject=subject,
        reason=body.reason,
        regulation=body.regulation,
        requested_at=body.requested_at,
        metadata=body.metadata,
        idempotency_key=key,
        traceparent=tracing.carry_or_begin(traceparent),
    )


def _refusal(refused: SubmissionError) -> Problem:
    error = FieldError(pointer=f"/{refused.field}", code=refused.code, detail=refused.detail)
    return problems.invalid([error])


_UNACCEPTED: Final[Mapping[int, Answer]] = {4: "refused", 5: "failed"}
"""What a submission became that was answered with such a status, by its hundreds."""


class _CountUnaccepted:
    """Counts submissions that were answered with a 4xx (refused) or a 5xx (failed)."""

    def __init__(self, app: ASGIApp, metrics: IntakeMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", PATH):
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                outcome = _UNACCEPTED.get(message["status"] // 100)
                if outcome is not None:
                    self._metrics.answered(outcome)
            await send(message)

        await self._app(scope, receive, counted)
