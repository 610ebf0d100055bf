"""When a request counts as ended, and what is said when it ends otherwise than expected."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lethe_sandbox import clients as module
from lethe_sandbox.clients import Clients, RefusedError
from lethe_sandbox.ground_truth import Person
from lethe_sandbox.journey import Journey, JourneyError, follow
from lethe_sandbox.progress import Done
from lethe_sandbox.services import ApiKeys

NOTHING = {
    "feature_rows": 0,
    "task_rows": 0,
    "client_rows": 0,
    "objects_gone": 0,
    "objects_missing": 0,
    "objects_scheduled": 0,
    "objects_kept": 0,
    "rows_blocked": 0,
}
VERIFIED = Person("acct-1", "ordinary", requested=True, end="verified")
BLOCKED = Person("acct-2", "unknown", requested=True, end="blocked", reasons={"unknown_type": 1})


class Services:
    """Answers for intake and reporting, as scripted: each round the next words of each."""

    def __init__(self, *rounds: tuple[str, dict[str, Any] | None]) -> None:
        self._rounds = list(rounds)
        self._now = -1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self._now += request.url.path == "/v1/requests"
        intake, reported = self._rounds[min(self._now, len(self._rounds) - 1)]
        if request.url.path.startswith("/v1/erasure-requests"):
            return httpx.Response(200, json={"state": intake})
        if request.url.path == "/v1/requests":
            item = {"id": "r1", "updated_at": str(self._now)}
            if reported is None:
                return httpx.Response(503)
            return httpx.Response(200, json={"items": [item], "next_cursor": None})
        return httpx.Response(200, json=reported)


def report(state: str, blockers: dict[str, int] | None = None, rows: int = 0) -> dict[str, Any]:
    counts = {"upscale": {**NOTHING, "feature_rows": rows, "objects_gone": rows}}
    return {"state": state, "blockers": blockers or {}, "counts": counts}


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Clients] = []

    def make(services: Any) -> Clients:
        transport = httpx.MockTransport(services)

        def client(url: str, _: str) -> httpx.Client:
            return httpx.Client(base_url=url, transport=transport)

        monkeypatch.setattr(module, "_client", client)
        made.append(Clients("http://intake", "http://reporting", ApiKeys("a", "b")))
        return made[-1]

    monkeypatch.setattr("lethe_sandbox.journey._POLL_SECONDS", 0)
    yield make
    for each in made:
        each.__exit__(None, None, None)


def run(services: Clients, person: Person, *, patience: float = 10) -> tuple[Journey, list[Done]]:
    journey = Journey(person, "r1")
    seen: list[Done] = []
    follow(services, [journey], show=seen.append, watch=lambda _: None, patience=patience)
    return journey, seen


def test_a_request_has_ended_when_both_services_say_the_same(clients: Any) -> None:
    services = Services(
        ("requested", report("accepted")),
        ("running", report("running", rows=3)),
        ("running", report("verified", rows=5)),
        ("verified", report("verified", rows=5)),
    )
    journey, seen = run(clients(services), VERIFIED)
    assert journey.as_expected
    assert [done.rows["upscale"] for done in seen] == [0, 3, 5, 5]
    assert [done.persons for done in seen] == [0, 0, 0, 1]


def test_a_service_that_is_down_is_asked_again(clients: Any) -> None:
    services = Services(
        ("running", None), ("running", None), ("blocked", report("blocked", {"unknown_type": 1}))
    )
    journey, _ = run(clients(services), BLOCKED)
    assert journey.as_expected


def test_other_reasons_than_expected_are_named(clients: Any) -> None:
    services = Services(("blocked", report("blocked", {"unknown_type": 2})))
    with pytest.raises(JourneyError, match=r"unknown_type x 1.*unknown_type x 2"):
        run(clients(services), BLOCKED)


def test_blocked_instead_of_verified_is_no_success(clients: Any) -> None:
    services = Services(("blocked", report("blocked", {"uncovered": 1})))
    with pytest.raises(JourneyError, match=r"expected verified, but reporting says blocked"):
        run(clients(services), VERIFIED)


def test_when_nothing_moves_the_states_are_told(clients: Any) -> None:
    services = Services(("requested", report("accepted")))
    with pytest.raises(JourneyError, match="1 accepted"):
        run(clients(services), VERIFIED, patience=0)


def test_a_refusal_is_told_with_its_title(clients: Any) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"title": "The key lacks a scope"})

    with pytest.raises(RefusedError, match="403: The key lacks a scope"):
        clients(refuse).submit("acct-1", "demo-1")
