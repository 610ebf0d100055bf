"""The programs that tests run; `make test` brings those that no machine has."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program(name: str) -> str:
    """Find `name` on the PATH (which includes .sandbox/tools/bin)."""
    found = shutil.which(name)
    assert found, f"{name} is not here: `make test` brings it"
    return found


def beside(tool: str, name: str) -> str:
    """Find `name`, which comes in the same package as `tool`."""
    found = Path(program(tool)).resolve().parent / name
    assert found.exists(), f"{found} is not beside {tool}"
    return str(found)


def environment() -> dict[str, str]:
    """Give this process's environment without what is set for Lethe."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run `command` to its end and give all it printed; AssertionError unless it exits 0."""
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}"
    return done.stdout
