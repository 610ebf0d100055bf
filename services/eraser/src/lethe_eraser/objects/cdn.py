"""CloudFront before the buckets: what is gone from S3 is forgotten at the edges, too.

An edge keeps an object for its TTL, a day by default, whatever becomes of the origin. It is told
after the delete; before it, the edge would fetch the object anew.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any, Final, Self
from urllib.parse import quote

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr

from lethe_eraser.catalog import Origin
from lethe_eraser.domain import ObjectRef
from lethe_eraser.objects.breaker import SECONDS, Breaker, OnState
from lethe_eraser.objects.outcomes import CircuitOpenError
from lethe_eraser.objects.threads import Threads

PATHS_AT_ONCE: Final = 1000
"""Paths per invalidation; CloudFront has at most 3,000 of a distribution in progress."""

WILDCARDS_AT_ONCE: Final = 15
"""CloudFront's own limit of wildcards in progress."""

BUSY: Final = "TooManyInvalidationsInProgress"

_SAFE: Final = "/:@!$&'(),;=~+-._"


class CdnError(Exception):
    """The CDN did not do it, now; `code` is its own code or the class of the driver's error."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the CDN refused or cannot be reached: {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class CdnOptions:
    """How to reach CloudFront. Without an endpoint, AWS; without keys, boto's own chain."""

    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    breaker_seconds: float = SECONDS


class Cdn:
    """Invalidates paths of distributions.

    Args:
        options: how to reach it.
        on_error: told the code of every error, from any thread.
        on_breaker: told whether its circuit is open, when that changes.
    """

    def __init__(
        self,
        options: CdnOptions,
        *,
        on_error: Callable[[str], None] = lambda _: None,
        on_breaker: OnState = lambda _name, _is_open: None,
    ) -> None:
        self._options = options
        self._on_error = on_error
        self._breaker = Breaker(
            "cdn", is_outage=_is_outage, on_state=on_breaker, seconds=options.breaker_seconds
        )
        self._threads = Threads(1)
        self._making = Lock()
        self._made: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for a call under way."""
        await self._threads.close()

    async def create(self, distribution: str, reference: str, paths: Sequence[str]) -> str:
        """Begin an invalidation and give its id; the same reference again gives the same.

        Raises:
            CdnError: Not now; `BUSY` when too many are in progress.
        """

        def ask(client: Any) -> str:
            answer = client.create_invalidation(
                DistributionId=distribution,
                InvalidationBatch={
                    "Paths": {"Quantity": len(paths), "Items": list(paths)},
                    "CallerReference": reference,
                },
            )
            return str(answer["Invalidation"]["Id"])

        return await self._threads.run(self._call, ask)

    async def is_done(self, distribution: str, invalidation_id: str) -> bool:
        """Whether every edge has forgotten.

        Raises:
            CdnError: It cannot be asked now.
        """

        def ask(client: Any) -> bool:
            answer = client.get_invalidation(DistributionId=distribution, Id=invalidation_id)
            return str(answer["Invalidation"]["Status"]).lower() == "completed"

        return await self._threads.run(self._call, ask)

    def _call(self, operation: Callable[[Any], Any]) -> Any:
        try:
            with self._breaker.guarding():
                return operation(self._client())
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "Unknown"))
            self._on_error(code)
            raise CdnError(code) from None
        except BotoCoreError as error:
            self._on_error(type(error).__name__)
            raise CdnError(type(error).__name__) from None
        except CircuitOpenError as error:
            raise CdnError(error.code) from None

    def _client(self) -> Any:
        secret = self._options.secret_access_key
        with self._making:
            if self._made is None:
                self._made = boto3.session.Session().client(
                    "cloudfront",
                    region_name="us-east-1",
                    endpoint_url=self._options.endpoint_url,
                    aws_access_key_id=self._options.access_key_id,
                    aws_secret_access_key=None if secret is None else secret.get_secret_value(),
                    config=Config(
                        retries={"mode": "standard", "total_max_attempts": 3},
                        connect_timeout=5,
                        read_timeout=60,
                    ),
                )
            return self._made


def paths_at(
    distributions: Mapping[str, tuple[Origin, ...]],
    refs: Iterable[ObjectRef],
    own_prefixes: Collection[str],
) -> dict[str, set[str]]:
    """Give, by distribution, the paths under which objects were served.

    Below a prefix that is all one person's (`own_prefixes`, of keys), one wildcard stands for all.
    """
    found: dict[str, set[str]] = {}
    for ref in refs:
        for distribution, origins in distributions.items():
            for origin in origins:
                if path := _path(origin, ref, own_prefixes):
                    found.setdefault(distribution, set()).add(path)
    return found


def batches(paths: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Split paths into invalidations that CloudFront takes."""
    ordered = sorted(paths)
    wild = [path for path in ordered if path.endswith("*")]
    plain = [path for path in ordered if not path.endswith("*")]
    for chosen, size in ((wild, WILDCARDS_AT_ONCE), (plain, PATHS_AT_ONCE)):
        for start in range(0, len(chosen), size):
            yield tuple(chosen[start : start + size])


def _path(origin: Origin, ref: ObjectRef, own_prefixes: Collection[str]) -> str | None:
    root = f"{origin.origin_path.strip('/')}/" if origin.origin_path.strip("/") else ""
    if origin.bucket != ref.bucket or not ref.key.startswith(root):
        return None
    path = f"/{ref.key.removeprefix(root)}"
    if origin.pattern is not None and not fnmatchcase(path, origin.pattern.replace("[", "[[]")):
        return None
    for own in own_prefixes:
        if ref.key.startswith(own) and own.startswith(root):
            return f"{quote('/' + own.removeprefix(root), safe=_SAFE)}*"
    return quote(path, safe=_SAFE)


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(status >= 500)  # noqa: PLR2004  # HTTP
    return isinstance(error, BotoCoreError)
