"""`python -m lethe_reporting` is `lethe reporting run`."""

import sys

from lethe_runtime import cli

sys.argv[1:] = ["reporting", "run"]
cli.main()
