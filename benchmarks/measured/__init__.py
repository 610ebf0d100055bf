"""The measured processes, one module each; `harness.told` says how they talk."""
