"""Projects erasure events into a read model and answers questions about it."""
