"""The two HTTP APIs, as a team uses them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import httpx

from lethe_sandbox.services import TEAM, ApiKeys

_SECONDS: Final = 10.0
_PAGE: Final = 200
_ROWS: Final = ("feature_rows", "task_rows", "client_rows")


class RefusedError(Exception):
    """An API answered what the demo did not expect; the message has its status and title."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What reporting says of one request."""

    state: str
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Blocked rows per reason."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Masked rows per request type."""
    objects: int = 0
    """Deleted objects."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read the document of `GET /v1/requests/{id}`."""
        counts: Mapping[str, Mapping[str, int]] = document["counts"]
        return cls(
            state=document["state"],
            reasons=document["blockers"],
            rows={name: sum(each[kind] for kind in _ROWS) for name, each in counts.items()},
            objects=sum(each["objects_gone"] for each in counts.values()),
        )


class Clients:
    """Intake and reporting. A service that is down right now is no error: it is asked again."""

    def __init__(self, intake_url: str, reporting_url: str, keys: ApiKeys) -> None:
        self._intake = _client(intake_url, keys.intake)
        self._reporting = _client(reporting_url, keys.reporting)

    def __enter__(self) -> Self:
        """Open the connections."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._intake.close()
        self._reporting.close()

    def submit(
        self, subject: str, idempotency_key: str, requested_at: datetime | None = None
    ) -> str:
        """Ask for a person's erasure and give the id of the request.

        Args:
            subject: the person.
            idempotency_key: of this submission.
            requested_at: when the person asked; None for now.

        Raises:
            RefusedError: Anything but 202, or no answer.
        """
        asked = {} if requested_at is None else {"requested_at": requested_at.isoformat()}
        try:
            answer = self._intake.post(
                "/v1/erasure-requests",
                json={"subject": subject, "reason": "account_withdrawn", **asked},
                headers={"Idempotency-Key": idempotency_key},
            )
        except httpx.TransportError as error:
            raise RefusedError(f"intake does not answer: {type(error).__name__}") from error
        if answer.status_code != HTTPStatus.ACCEPTED:
            raise _refused("intake", answer)
        return str(answer.json()["id"])

    def intake_state(self, request_id: str) -> str | None:
        """Give the state intake knows; None while intake is down."""
        document = _get(self._intake, "intake", f"/v1/erasure-requests/{request_id}")
        return str(document["state"]) if document else None

    def newest(self) -> dict[str, str]:
        """Say when reporting last heard of each request; empty while it is down."""
        known: dict[str, str] = {}
        page: dict[str, Any] | None = {"next_cursor": ""}
        while page and page["next_cursor"] is not None:
            query = {"limit": str(_PAGE), "cursor": page["next_cursor"]}
            page = _get(
                self._reporting, "reporting", "/v1/requests", {k: v for k, v in query.items() if v}
            )
            known |= {item["id"]: item["updated_at"] for item in (page or {"items": []})["items"]}
        return known

    def reported(self, request_id: str) -> Reported | None:
        """Give what reporting knows; None while it is down or has not heard of the request."""
        document = _get(self._reporting, "reporting", f"/v1/requests/{request_id}")
        return Reported.of(document) if document else None


def _client(url: str, key: str) -> httpx.Client:
    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}", "User-Agent": f"lethe-{TEAM}"},
        timeout=_SECONDS,
        # The services are on this machine; a proxy of the user's environment is not meant for them.
        trust_env=False,
    )


def _get(
    client: httpx.Client, service: str, path: str, query: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    try:
        answer = client.get(path, params=query)
    except httpx.TransportError:
        return None
    if answer.status_code == HTTPStatus.NOT_FOUND or answer.is_server_error:
        return None
    if not answer.is_success:
        raise _refused(service, answer)
    document: dict[str, Any] = answer.json()
    return document


def _refused(service: str, answer: httpx.Response) -> RefusedError:
    try:
        title = answer.json().get("title", "")
    except ValueError:
        title = "an answer that is no problem document"
    return RefusedError(f"{service} answered {answer.status_code}: {title}")
