"""Accepts erasure requests over HTTP and promises them through its outbox."""
