"""Other relays, measured in the same run; they live in an environment of their own."""
