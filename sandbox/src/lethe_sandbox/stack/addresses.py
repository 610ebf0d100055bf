"""Where the servers of a stack answer, and with which credentials."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """One PostgreSQL server and its superuser."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def database_url(self, name: str, driver: str = "psycopg") -> str:
        """Give the SQLAlchemy URL of database `name`; an empty `driver` gives a plain libpq URL."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@{self.host}:{self.port}/{quote(name, safe='')}"


@dataclass(frozen=True, slots=True)
class S3Address:
    """One S3 server."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    def client(self, **options: Any) -> "S3Client":
        """Open a boto3 client of this server; `options` go to `boto3.client`."""
        import boto3  # noqa: PLC0415 - takes 0.3 s to import, and most users of addresses need no client

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            **options,
        )


@dataclass(frozen=True, slots=True)
class Addresses:
    """Everything a client needs to reach the four servers."""

    postgres: PostgresAddress
    kafka: str
    """The bootstrap servers, `host:port`."""
    redis_url: str
    """Without a database number."""
    s3: S3Address

    def database_url(self, name: str, driver: str = "psycopg") -> str:
        """Give the URL of PostgreSQL database `name`, as `PostgresAddress.database_url`."""
        return self.postgres.database_url(name, driver)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a state file; they hold the passwords."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `as_dict` gave."""
        return cls(
            postgres=PostgresAddress(**values["postgres"]),
            kafka=values["kafka"],
            redis_url=values["redis_url"],
            s3=S3Address(**values["s3"]),
        )
