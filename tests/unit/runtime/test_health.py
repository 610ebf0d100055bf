import pytest

from lethe_runtime.health import Readiness


def test_not_ready_until_each_required_dependency_was_found_well() -> None:
    readiness = Readiness(["database", "kafka"], optional=["redis"])
    assert not readiness.report().ready

    readiness.ok("database")
    assert not readiness.report().ready

    readiness.ok("kafka")
    assert readiness.report().ready

    readiness.away("kafka", "NoBrokersAvailable")
    report = readiness.report()
    assert not report.ready
    assert report.dependencies["kafka"].error_class == "NoBrokersAvailable"


def test_an_optional_dependency_is_reported_and_holds_nothing_back() -> None:
    readiness = Readiness(["database"], optional=["redis"])
    readiness.ok("database")
    readiness.away("redis", "ConnectionError")

    report = readiness.report()

    assert report.ready
    assert report.dependencies["redis"].status == "away"


def test_since_is_when_the_status_began() -> None:
    readiness = Readiness(["database"])
    readiness.away("database", "OSError")
    first = readiness.report().dependencies["database"].since
    readiness.away("database", "OSError")

    assert readiness.report().dependencies["database"].since == first


def test_an_unannounced_name_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Readiness([]).ok("database")
