"""An S3 that answers as a test says, for what no server can be made to do (throttle, time out)."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from lethe_eraser.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it left boto3."""

    operation: str
    url: str
    body: str
    headers: dict[str, str]

    @property
    def keys(self) -> list[str]:
        return re.findall(r"<Key>(.*?)</Key>", self.body, re.DOTALL)

    @property
    def versions(self) -> list[str]:
        return re.findall(r"<VersionId>(.*?)</VersionId>", self.body)


Answer = tuple[int, str] | BaseException
Script = Callable[[Sent], Answer]


class _Raw(BytesIO):
    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self.read()


@contextmanager
def scripted(store: ObjectStore, buckets: list[str], script: Script) -> Iterator[list[Sent]]:
    """Answer the store's requests by `script`; gives the requests, in order."""
    sent: list[Sent] = []

    def answer(request: AWSPreparedRequest, event_name: str, **_: Any) -> Any:
        body: Any = request.body or b""
        text = (body if isinstance(body, bytes) else body.read()).decode()
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
        }
        one = Sent(event_name.rpartition(".")[2], unquote(request.url), text, headers)
        sent.append(one)
        said = script(one)
        if isinstance(said, BaseException):
            raise said
        status, content = said
        return AWSResponse(request.url, status, HTTPHeaders(), _Raw(content.encode()))

    clients = {id(c): c for c in (store._calls._client(bucket)[0] for bucket in buckets)}
    for client in clients.values():
        client.meta.events.register("before-send.s3", answer)
    yield sent


def errors(*pairs: tuple[str, str]) -> tuple[int, str]:
    """A 200 of DeleteObjects that refuses these (key, code)."""
    entries = "".join(
        f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"
        for key, code in pairs
    )
    return 200, f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult>{entries}</DeleteResult>'


def refusal(status: int, code: str) -> tuple[int, str]:
    """A refusal of the whole request."""
    return status, f"<Error><Code>{code}</Code><Message>no</Message></Error>"


def versioning(status: str | None) -> tuple[int, str]:
    """The answer of GetBucketVersioning."""
    inner = "" if status is None else f"<Status>{status}</Status>"
    return 200, f"<VersioningConfiguration>{inner}</VersioningConfiguration>"


def operations(sent: list[Sent]) -> list[str]:
    """The names of the requests."""
    return [one.operation for one in sent]


__all__ = ["Sent", "errors", "operations", "refusal", "scripted", "versioning"]
