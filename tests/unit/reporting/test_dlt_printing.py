"""What `lethe dlt` shows on a terminal."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from rich.console import Console

from lethe_outbox import Fate
from lethe_reporting.dlt_cli import printing
from lethe_reporting.dlt_cli.printing import Printer, Progress, print_fates
from lethe_reporting.storage.dead_letters import DeadLetter

REF = "1." + "ab" * 32
EVENT = UUID(int=7)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def letter(number: int, key: bytes | None, event_id: UUID | None) -> DeadLetter:
    return DeadLetter(
        id=number,
        topic="erasure.requests.v1.DLT",
        partition=3,
        offset=0,
        key=key,
        event_id=event_id,
        reason="unknown_version",
        error_class="PoisonError",
        refused_by="lethe-reporting",
        attempts=1,
        origin_topic="erasure.requests.v1",
        origin_partition=3,
        origin_offset=41,
        first_failed_at=NOON,
        last_failed_at=NOON,
        recorded_at=NOON,
        state="open",
        state_changed_at=None,
    )


@pytest.mark.parametrize("columns", [80, 120, 250])
def test_a_list_can_be_read_and_copied_from_on_any_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "_console", lambda: Console(width=columns))
    Printer([letter(9_000_000_001, REF.encode(), EVENT), letter(5, None, None)], {}).table()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    shown = "\n".join(lines)
    for whole in ("9000000001", REF, str(EVENT), "erasure.requests.v1.DLT", "lethe-reporting"):
        assert whole in shown
    (first,) = [line for line in lines if "9000000001" in line]
    assert "2026-11-20 12:00:00" in first
    assert "unknown_version" in first


@pytest.mark.parametrize(
    ("fate", "next_"),
    [
        (Fate.UNKNOWN, "lethe dlt list --all"),
        (Fate.TOO_OLD, "--beyond-inbox"),
        (Fate.WITHOUT_ORIGIN, "lethe dlt discard"),
    ],
)
def test_who_is_refused_something_hears_what_to_do_next(
    fate: Fate, next_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_fates({17: fate, 18: Fate.REPLAYED}, {}, dry_run=False, as_json=False)
    said = capsys.readouterr()
    assert said.out == f"17\t{fate.value.replace('_', ' ')}\n18\treplayed\n"
    assert next_ in said.err


def test_programs_are_told_outcomes_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_fates({17: Fate.UNKNOWN}, {}, dry_run=False, as_json=True)
    assert capsys.readouterr() == ('[{"id": 17, "outcome": "unknown"}]\n', "")


@pytest.mark.parametrize("dealt_with", [0, 2])
def test_the_one_that_stops_those_behind_it_is_named(
    dealt_with: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [17, 18, 29]

    def stopped() -> None:
        with Progress(ids, "replayed") as progress:
            for one in ids[:dealt_with]:
                progress.told(one, Fate.REPLAYED)
            raise MessageSizeTooLargeError

    with pytest.raises(MessageSizeTooLargeError):
        stopped()
    said = capsys.readouterr().err
    assert f"{dealt_with} of 3 were dealt with before; the next one is {ids[dealt_with]}\n" in said
