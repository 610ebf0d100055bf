"""Every kind of bad input: a problem, the right status, no stack trace, the person never named."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lethe_intake.api import READ, WRITE
from lethe_runtime import database, storage
from tests.integration.intake.conftest import BODY_LIMIT, Intake, make_key

PERSON = "acct-000017"
BODY = {"subject": PERSON, "reason": "account_withdrawn"}
PATH = "/v1/erasure-requests"


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:lethe:problem:{slug}"
    assert document["status"] == status
    assert PERSON not in response.text
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return document


async def nothing_happened(intake: Intake) -> None:
    assert (await intake.rows("select count(*) from lethe.erasure_request"))[0][0] == 0
    assert (await intake.rows("select count(*) from lethe.outbox"))[0][0] == 0
    assert PERSON not in intake.log.getvalue()
    assert '"level": "error"' not in intake.log.getvalue()


def errors(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(error["pointer"], error["code"]) for error in document["errors"]}


def _body(**changes: object) -> dict[str, object]:
    return {**BODY, **changes}


LONG_AGO = (datetime.now(UTC) - timedelta(days=800)).isoformat()
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()

NOT_VALID: dict[str, tuple[object, set[tuple[str, str]]]] = {
    "nothing": ({}, {("/subject", "missing"), ("/reason", "missing")}),
    "a list": ([BODY], {("", "model_type")}),
    "a string": (PERSON, {("", "model_type")}),
    "an unknown field": (_body(subjekt=PERSON), {("/*", "unknown_field")}),
    "a field named as the person": (_body(**{PERSON: 1}), {("/*", "unknown_field")}),
    "a number for a subject": (_body(subject=17), {("/subject", "string_type")}),
    "an empty subject": (_body(subject=""), {("/subject", "string_too_short")}),
    "a blank subject": (_body(subject="   "), {("/subject", "not_a_subject")}),
    "a long subject": (_body(subject=PERSON * 50), {("/subject", "string_too_long")}),
    "a control character": (_body(subject=f"{PERSON}\0"), {("/subject", "not_a_subject")}),
    "a null reason": (_body(reason=None), {("/reason", "string_type")}),
    "a reason of many lines": (_body(reason="a\nb"), {("/reason", "string_pattern_mismatch")}),
    "a reason with NUL": (_body(reason="a\0b"), {("/reason", "string_pattern_mismatch")}),
    "a reason that names the person": (
        _body(reason=f"{PERSON} left"),
        {("/reason", "names_the_subject")},
    ),
    "metadata that names the person": (
        _body(metadata={"who": PERSON}),
        {("/metadata", "names_the_subject")},
    ),
    "a law nobody knows": (_body(regulation=PERSON), {("/regulation", "literal_error")}),
    "tomorrow": (_body(requested_at=TOMORROW), {("/requested_at", "in_the_future")}),
    "long ago": (_body(requested_at=LONG_AGO), {("/requested_at", "too_old")}),
    "a time without an offset": (
        _body(requested_at="2026-11-20T09:00:00"),
        {("/requested_at", "timezone_aware")},
    ),
    "a number for a time": (_body(requested_at=1), {("/requested_at", "datetime_type")}),
    "no time at all": (
        _body(requested_at=PERSON),
        {("/requested_at", "datetime_parsing")},
    ),
    "a year beyond years": (
        _body(requested_at="9999-12-31T23:59:59-14:00"),
        {("/requested_at", "in_the_future")},
    ),
    "the first second of all": (
        _body(requested_at="0001-01-01T00:00:00+14:00"),
        {("/requested_at", "too_old")},
    ),
    "metadata of a strange name": (
        _body(metadata={f"{PERSON}/x": 1}),
        {("/metadata/*/*", "string_pattern_mismatch")},
    ),
    "too much metadata": (
        _body(metadata={f"k{n}": n for n in range(33)}),
        {("/metadata", "too_long")},
    ),
}


@pytest.mark.parametrize("case", NOT_VALID)
async def test_a_body_that_is_not_acceptable(intake: Intake, key: str, case: str) -> None:
    body, expected = NOT_VALID[case]

    document = problem(await intake.post(body, key), 422, "invalid-request")

    assert errors(document) == expected
    await nothing_happened(intake)


@pytest.mark.parametrize("nested", [{"a": {"b": PERSON}}, {"a": [PERSON]}])
async def test_metadata_is_flat(intake: Intake, key: str, nested: object) -> None:
    response = await intake.post(_body(metadata=nested), key)

    problem(response, 422, "invalid-request")
    await nothing_happened(intake)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"subject": "acct-000017"',
        b'{"subject": "acct-000017",}',
        b'{"subject": "\\ud800", "reason": "x"}',
        b'{"subject": "acct-000017\xff", "reason": "x"}',
        b"[" * 2000,
    ],
)
async def test_malformed_json(intake: Intake, key: str, content: bytes) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    response = await intake.client.post(PATH, content=content, headers=headers)

    problem(response, 400, "malformed-json")
    await nothing_happened(intake)


@pytest.mark.parametrize("content_type", [None, "text/csv", "application/x-www-form-urlencoded"])
async def test_another_content_type(intake: Intake, key: str, content_type: str | None) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    if content_type:
        headers["Content-Type"] = content_type
    response = await intake.client.post(PATH, content=json.dumps(BODY), headers=headers)

    problem(response, 415, "unsupported-media-type")
    await nothing_happened(intake)


async def test_a_parameter_of_the_content_type_is_fine(intake: Intake, key: str) -> None:
    response = await intake.client.post(
        PATH,
        content=json.dumps(BODY),
        headers={
            "Authorization": f"Bearer {key}",
            "Content-Type": "Application/JSON; charset=utf-8",
        },
    )

    assert response.status_code == 202


async def test_a_body_over_the_limit(intake: Intake, key: str) -> None:
    response = await intake.post(_body(reason="x" * BODY_LIMIT), key)

    problem(response, 413, "body-too-large")
    await nothing_happened(intake)


async def test_a_body_over_the_limit_that_does_not_say_so(intake: Intake, key: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield json.dumps(BODY).encode()
        for _ in range(64):
            yield b" " * 1024

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    response = await intake.client.post(PATH, content=endless(), headers=headers)

    problem(response, 413, "body-too-large")
    await nothing_happened(intake)


async def test_a_body_over_the_limit_on_the_wire(intake: Intake, key: str) -> None:
    """Chunked by hand: the answer comes although the body never ends."""
    host, _, port = intake.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for _ in range(BODY_LIMIT // 1024 + 1):
        writer.write(b"400\r\n" + b" " * 1024 + b"\r\n")
    await writer.drain()

    status = await asyncio.wait_for(reader.readline(), 10)

    assert status.startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Basic YTpi",
        "Bearer acct-000017",
        "Bearer lethe_abcdefghijkm_" + "x" * 43,
        "Bearer lethe_abcdefghijkm_" + "x" * 430,
        "Bearer lethe_abcdefghijkm_\u00e9",
    ],
)
async def test_no_key_and_unknown_keys(intake: Intake, authorization: str | None) -> None:
    given = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    response = await intake.client.post(PATH, json=BODY, headers=given)

    bearer = (authorization or "").startswith("Bearer ")
    problem(response, 401, "unknown-key" if bearer else "missing-key")
    assert response.headers["www-authenticate"] == "Bearer"
    await nothing_happened(intake)


async def test_a_wrong_secret_and_a_revoked_key(intake: Intake, intake_url: str, key: str) -> None:
    wrong = key[:-4] + ("AAAA" if key[-4:] != "AAAA" else "BBBB")
    problem(await intake.post(BODY, wrong), 401, "unknown-key")

    with database.connected(intake_url, "test") as connection:
        assert storage.revoke(connection, key.split("_")[1])

    problem(await intake.post(BODY, key), 401, "unknown-key")
    await nothing_happened(intake)


async def test_a_key_without_the_scope(intake: Intake, intake_url: str) -> None:
    reader = make_key(intake_url, "crm", READ)
    writer = make_key(intake_url, "crm", WRITE)

    document = problem(await intake.post(BODY, reader), 403, "missing-scope")
    assert "erasure:write" in document["detail"]
    location = (await intake.post(BODY, writer)).headers["location"]
    problem(await intake.get(location, writer), 403, "missing-scope")


async def test_who_has_no_key_learns_nothing_about_the_body(intake: Intake) -> None:
    response = await intake.client.post(PATH, content=b"{", headers={"Content-Type": "text/csv"})

    problem(response, 401, "missing-key")


@pytest.mark.parametrize("idempotency_key", ["", "two words", "x" * 256, "\u00fc", "a\tb"])
async def test_an_idempotency_key_that_is_none(
    intake: Intake, key: str, idempotency_key: str
) -> None:
    headers = [
        (b"Authorization", f"Bearer {key}".encode()),
        (b"Idempotency-Key", idempotency_key.encode("latin-1")),
    ]
    response = await intake.client.post(PATH, json=BODY, headers=headers)

    document = problem(response, 422, "invalid-request")
    assert [error["pointer"] for error in document["errors"]] == ["/header/Idempotency-Key"]
    await nothing_happened(intake)


@pytest.mark.parametrize("trace", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"])
async def test_a_bad_trace_context_is_replaced(intake: Intake, key: str, trace: str) -> None:
    assert (await intake.post(BODY, key, traceparent=trace)).status_code == 202


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        (f"{PATH}/{PERSON}", 422, "invalid-request"),
        (f"{PATH}/019c1f0e-6f5e-7c3a-9a51-2f0b8f6f9a10", 404, "unknown-request"),
        (f"/{PERSON}", 404, "not-found"),
        (PATH, 405, "method-not-allowed"),
    ],
)
async def test_looking_where_there_is_nothing(
    intake: Intake, key: str, path: str, status: int, slug: str
) -> None:
    problem(await intake.get(path, key), status, slug)
    await nothing_happened(intake)
