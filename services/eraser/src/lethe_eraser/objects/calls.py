"""Single calls to S3: which client serves which bucket, and what an error means."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from lethe_eraser.catalog import Bucket
from lethe_eraser.objects.breaker import SECONDS, Breaker, OnState
from lethe_eraser.objects.outcomes import CircuitOpenError, ObjectStoreUnavailableError
from lethe_eraser.objects.pace import KEYS_PER_SECOND, THROTTLING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")
Operation = Callable[["S3Client", dict[str, Any]], T]

RETRYABLE: Final = THROTTLING | {
    "InternalError",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "OperationAborted",
    "BandwidthLimitExceeded",
    "500",
    "502",
    "504",
}
"""Codes that a retry may mend, of a whole request or of one key in `Errors[]`."""

_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_STUMBLES: Final = frozenset({"InternalError", "500"})
_NOT_IN_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

ATTEMPTS: Final = 5
"""Tries of one call, or of the keys of one page that S3 asked to send again."""

LISTED: Final = {
    "Object": ("Key",),
    "ObjectVersion": ("Key", "VersionId", "ETag"),
    "DeleteMarkerEntry": ("Key", "VersionId"),
}
"""What is read of a listing's entries: their times, sizes and owners take longer than the rest."""

_ROOTS: Final = {
    "DeleteObjects": b"<DeleteResult",
    "GetBucketVersioning": b"Versioning",
    "ListObjectVersions": b"<ListVersionsResult",
    "ListObjectsV2": b"<ListBucketResult",
}
"""What stands in every answer out of whose silence something is concluded: that nothing was
refused, or is there."""

_NO_SUCCESS: Final = 300

_MAKING: Final = Lock()
"""boto3 makes one client at a time; the clients themselves may be shared."""


@cache
def _session() -> boto3.session.Session:
    """The session whose S3 model, half a second's reading, all clients share."""
    core = botocore.session.get_session()
    loader = core.get_component("data_loader")
    # Read as clients do it, so that it is the one they are given.
    model = loader.load_service_model("s3", "service-2", api_version=None)
    for shape, names in LISTED.items():
        members = model["shapes"][shape]["members"]
        model["shapes"][shape]["members"] = {name: members[name] for name in names}
    return boto3.session.Session(botocore_session=core)


def is_beyond_xml(key: str) -> bool:
    """Whether XML cannot carry the key: no page may hold it, and servers stumble over it."""
    return _NOT_IN_XML.search(key) is not None


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3. Without an endpoint, AWS; without keys, boto's own chain of credentials."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    threads: int = 8
    """Calls at once."""
    page_keys: int = 250
    """Keys per DeleteObjects; S3 takes at most 1000, smaller pages are kinder to a busy prefix."""
    prefix_keys_per_second: float = KEYS_PER_SECOND
    """The most keys a second that one prefix is asked to delete."""
    breaker_seconds: float = SECONDS
    """How long nothing is sent after too many failures in a row."""

    def __post_init__(self) -> None:
        if not 1 <= self.page_keys <= 1000:  # noqa: PLR2004  # S3's own limit
            raise ValueError("page_keys must be 1..1000")
        if self.threads < 1:
            raise ValueError("threads must be at least 1")
        if self.prefix_keys_per_second <= 0:
            raise ValueError("prefix_keys_per_second must be more than 0")


class RefusedError(Exception):
    """S3 refused the whole request, and will again."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class S3Calls:
    """boto3 clients, one per region, made when first needed; blocking, for a thread pool."""

    def __init__(
        self,
        options: S3Options,
        buckets: Mapping[str, Bucket],
        on_error: Callable[[str], None],
        on_breaker: OnState,
        wait_seconds: float,
    ) -> None:
        self._options = options
        self._on_breaker = on_breaker
        self._buckets = buckets
        self._on_error = on_error
        self._wait_seconds = wait_seconds
        self._clients: dict[str, tuple[S3Client, Breaker]] = {}

    def call(self, bucket: str, operation: Operation[T]) -> T:
        """Call `operation(client, arguments of every call)`, again while S3 asks for patience.

        Raises:
            ObjectStoreUnavailableError: S3 is away, throttles, or refuses our credentials.
            RefusedError: It refuses this request.
        """
        result: T = self.retrying()(self.once, bucket, operation)
        return result

    def call_for(self, bucket: str, key: str, operation: Operation[T]) -> T:
        """Like `call`, about one key; one over which S3 stumbles is no outage but a refusal.

        Only a key that XML cannot carry is suspected, and only while the bucket answers.
        """
        if not is_beyond_xml(key):
            return self.call(bucket, operation)

        def suspecting() -> T:
            try:
                return self.once(bucket, operation)
            except ObjectStoreUnavailableError as error:
                if error.code in _STUMBLES and self._answers(bucket):
                    raise RefusedError(error.code) from None
                raise

        result: T = self.retrying()(suspecting)
        return result

    def _answers(self, bucket: str) -> bool:
        def ask(client: "S3Client", arguments: dict[str, Any]) -> None:
            client.head_bucket(**arguments)

        try:
            self.once(bucket, ask)
        except RefusedError:
            return True
        except ObjectStoreUnavailableError:
            return False
        return True

    def retrying(self) -> Retrying:
        """Tries with exponential waits and jitter, while the error is a passing one."""
        return Retrying(
            retry=retry_if_exception(_is_passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(
                multiplier=self._wait_seconds,
                max=20 * self._wait_seconds,
                jitter=self._wait_seconds,
            ),
            reraise=True,
        )

    def note(self, code: str) -> None:
        """Count an error by its code."""
        self._on_error(code)

    def once(self, bucket: str, operation: Operation[T]) -> T:
        """Like `call`, without a second try."""
        owner = self._buckets[bucket].owner
        arguments: dict[str, Any] = {"Bucket": bucket}
        if owner is not None:
            arguments["ExpectedBucketOwner"] = owner
        client, breaker = self._client(bucket)
        with breaker.guarding(), self._naming():
            return operation(client, arguments)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn what boto raises into what this package does, and count it."""
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "Unknown"))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            self._on_error(code)
            # 501 says that this server has no such call, and never will while we wait.
            is_away = status >= 500 and status != 501  # noqa: PLR2004  # HTTP
            if code in RETRYABLE or code in _CREDENTIALS or is_away:
                raise ObjectStoreUnavailableError(code) from None
            raise RefusedError(code) from None
        except ParamValidationError:
            self._on_error("ParamValidation")
            raise RefusedError("ParamValidation") from None
        except BotoCoreError as error:
            self._on_error(type(error).__name__)
            raise ObjectStoreUnavailableError(type(error).__name__) from None

    def _client(self, bucket: str) -> "tuple[S3Client, Breaker]":
        region = self._buckets[bucket].region or self._options.region
        if self._options.endpoint_url is not None:
            region = self._options.region
        with _MAKING:
            if region not in self._clients:
                breaker = Breaker(
                    f"s3 {region}",
                    is_outage=_is_outage,
                    on_state=self._on_breaker,
                    seconds=self._options.breaker_seconds,
                )
                self._clients[region] = self._make(region), breaker
            return self._clients[region]

    def _make(self, region: str) -> "S3Client":
        secret = self._options.secret_access_key
        own_endpoint = self._options.endpoint_url is not None
        client = _session().client(
            "s3",
            region_name=region,
            endpoint_url=self._options.endpoint_url,
            aws_access_key_id=self._options.access_key_id,
            aws_secret_access_key=None if secret is None else secret.get_secret_value(),
            config=Config(
                max_pool_connections=self._options.threads,
                # Retries are ours: boto's do not see the errors of single keys.
                retries={"mode": "standard", "total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=60,
                s3={"addressing_style": "path" if own_endpoint else "auto"},
            ),
        )
        for operation in _ROOTS:
            client.meta.events.register(f"before-parse.s3.{operation}", _doubt)
        return client


def _doubt(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Take a 200 that S3 did not write, as of a proxy or without a body, for a failure."""
    said = response_dict["body"] if response_dict["status_code"] < _NO_SUCCESS else None
    if said is not None and _ROOTS[operation_model.name] not in said:
        response_dict["status_code"] = 500


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, ObjectStoreUnavailableError) and not isinstance(
        error, CircuitOpenError
    )


def _is_outage(error: BaseException) -> bool:
    # `ServiceUnavailable` asks for patience and means an outage when it does not end.
    slower = THROTTLING - {"ServiceUnavailable", "503"}
    return isinstance(error, ObjectStoreUnavailableError) and error.code not in slower
