from lethe_sandbox.stack import Addresses, PostgresAddress, S3Address

POSTGRES = PostgresAddress("127.0.0.1", 5432, "lethe", "p@ss/word")
ADDRESSES = Addresses(
    postgres=POSTGRES,
    kafka="127.0.0.1:9092",
    redis_url="redis://127.0.0.1:6379",
    s3=S3Address("http://127.0.0.1:9000", "ap-northeast-2", "id", "very-secret"),
)


def test_a_database_url_names_the_driver_and_escapes_the_password() -> None:
    assert (
        ADDRESSES.database_url("intake")
        == "postgresql+psycopg://lethe:p%40ss%2Fword@127.0.0.1:5432/intake"
    )


def test_without_a_driver_the_url_is_libpq_s() -> None:
    assert POSTGRES.database_url("a b", driver="").startswith("postgresql://lethe:")
    assert POSTGRES.database_url("a b", driver="").endswith("/a%20b")


def test_no_secret_shows_when_addresses_are_printed() -> None:
    assert "p@ss/word" not in repr(ADDRESSES)
    assert "very-secret" not in repr(ADDRESSES)


def test_addresses_read_back_what_they_wrote() -> None:
    assert Addresses.from_dict(ADDRESSES.as_dict()) == ADDRESSES
