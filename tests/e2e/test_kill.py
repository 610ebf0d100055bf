"""`kill -9` of any one service in the middle of the erasure still ends with a passing audit."""

from typing import cast

import pytest

from lethe_sandbox import demo
from lethe_sandbox.stack import StackKind
from lethe_sandbox.supervisor import Supervisor
from tests.support.screens import RememberingScreen


# A machine that is busy with something else may need its time for this.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", ["intake", "relay", "eraser", "reporting"])
def test_a_killed_service_goes_on_where_it_was(
    service: str, request: pytest.FixtureRequest
) -> None:
    screen = RememberingScreen()
    killed = []

    def kill_and_restart(supervisor: Supervisor) -> None:
        supervisor.kill(service)
        supervisor.start(service)
        killed.append(service)

    report = demo.run(
        demo.Options(
            # Small batches, so that most of the work is still ahead when the first one is done.
            scale=0.01,
            batch_rows=5,
            name=f"kill-{service}",
            stack=cast("StackKind", request.config.getoption("--stack")),
        ),
        screen,
        after_first_batch=kill_and_restart,
    )

    assert killed == [service]
    assert report.ok
    assert screen.seen[-1].persons == screen.expected_persons
