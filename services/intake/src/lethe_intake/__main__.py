"""`python -m lethe_intake` is `lethe intake run`."""

import sys

from lethe_runtime import cli

sys.argv[1:] = ["intake", "run"]
cli.main()
