"""`python -m lethe_eraser` is `lethe eraser run`."""

import sys

from lethe_runtime import cli

sys.argv[1:] = ["eraser", "run"]
cli.main()
