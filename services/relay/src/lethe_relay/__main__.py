"""`python -m lethe_relay` is `lethe relay run`."""

import sys

from lethe_runtime import cli

sys.argv[1:] = ["relay", "run"]
cli.main()
