"""The programs that tests of alerts and compose run; `make test` brings them."""

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


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run `command` to its end and give all it printed; AssertionError unless it exits 0."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}"
    return done.stdout
