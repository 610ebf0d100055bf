import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from lethe_runtime import problems
from lethe_runtime.http import BodyLimit, json_body, json_request_body
from lethe_runtime.problems import Problem, responses

SECRET = "acct-000017"  # the identifier that must appear nowhere


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    subject: Annotated[str, Field(max_length=20)]
    notes: dict[str, int] = {}


class AwayError(Exception):
    pass


def _app() -> FastAPI:
    app = FastAPI()
    problems.install(app, unavailable=(AwayError,))
    app.add_middleware(BodyLimit, limit=1000)

    @app.post("/things", openapi_extra=json_request_body(Body), responses=responses(400, 422))
    async def make(body: Annotated[Body, Depends(json_body(Body))]) -> dict[str, int]:
        return {"length": len(body.subject)}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    @app.get("/away")
    async def away() -> None:
        raise AwayError(SECRET)

    @app.get("/refused")
    async def refused() -> None:
        raise Problem(409, "busy", "It is busy", "Later.", queue=3)

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def _problem(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    document: dict[str, Any] = response.json()
    assert document["status"] == response.status_code
    return document


JSON = {"Content-Type": "application/json"}


async def test_a_good_body_is_read(client: httpx.AsyncClient) -> None:
    response = await client.post("/things", json={"subject": SECRET})

    assert response.json() == {"length": 11}


@pytest.mark.parametrize(
    ("content", "status", "slug"),
    [
        (b'{"subject": "acct-000017"', 400, "malformed-json"),
        (b"acct-000017", 400, "malformed-json"),
        (b"", 400, "malformed-json"),
        (b"\xff\xfe", 400, "malformed-json"),
        (b'{"subject": "\\ud800"}', 400, "malformed-json"),
        (b"[]", 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
        (b'{"subject": 17}', 422, "invalid-request"),
        # The gateway before us may have read the other one.
        (b'{"subject": "a", "subject": "b"}', 422, "invalid-request"),
        (b'{"subject": "a", "notes": {"n": 1, "\\u006e": 2}}', 422, "invalid-request"),
    ],
)
async def test_a_body_that_is_not_one(
    client: httpx.AsyncClient, content: bytes, status: int, slug: str
) -> None:
    response = await client.post("/things", content=content, headers=JSON)

    assert response.status_code == status
    assert _problem(response)["type"] == f"urn:lethe:problem:{slug}"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json-patch+json"])
async def test_another_content_type(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post("/things", content=b'{"subject": "a"}', headers=headers)

    assert response.status_code == 415
    assert response.headers["accept"] == "application/json"
    _problem(response)


async def test_field_errors_point_and_do_not_quote(client: httpx.AsyncClient) -> None:
    body = {"subject": SECRET * 3, SECRET: 1, "notes": {SECRET: "x"}}
    document = _problem(await client.post("/things", json=body))

    assert {(error["pointer"], error["code"]) for error in document["errors"]} == {
        ("/subject", "string_too_long"),
        ("/*", "unknown_field"),
        ("/notes/*", "int_type"),
    }


async def test_a_declared_body_over_the_limit(client: httpx.AsyncClient) -> None:
    response = await client.post("/things", content=b" " * 1001, headers=JSON)

    assert response.status_code == 413
    _problem(response)


async def test_an_undeclared_body_over_the_limit(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    response = await client.post("/things", content=chunks(), headers=JSON)

    assert response.status_code == 413
    _problem(response)


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient) -> None:
    content = b'{"subject": "a"}'.ljust(1000)

    assert (await client.post("/things", content=content, headers=JSON)).status_code == 200


async def test_the_unforeseen_is_a_bare_500(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    response = await client.get("/broken")

    assert response.status_code == 500
    _problem(response)
    told = capsys.readouterr().out
    assert "RuntimeError" in told
    assert SECRET not in told


async def test_a_server_that_is_away_is_a_503(client: httpx.AsyncClient) -> None:
    response = await client.get("/away")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    _problem(response)


async def test_a_problem_carries_its_extensions(client: httpx.AsyncClient) -> None:
    document = _problem(await client.get("/refused"))

    assert document == {
        "type": "urn:lethe:problem:busy",
        "title": "It is busy",
        "status": 409,
        "detail": "Later.",
        "queue": 3,
    }


async def test_unknown_paths_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    assert _problem(await client.get(f"/{SECRET}"))["type"] == "urn:lethe:problem:not-found"
    refused = await client.put("/things")
    assert _problem(refused)["status"] == 405
    assert refused.headers["allow"] == "POST"


def test_the_description_names_the_body_and_the_problems() -> None:
    document = _app().openapi()

    post = document["paths"]["/things"]["post"]
    assert "subject" in post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    schema = post["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ProblemDocument"}
    assert {"ProblemDocument", "FieldError"} <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_a_client_that_leaves_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def receive() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        raise AssertionError("nobody listens")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/things",
        "raw_path": b"/things",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await _app()(scope, receive, send)

    assert "request failed" not in capsys.readouterr().out
