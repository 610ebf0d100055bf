"""Kafka: how it is reached, which topics there are and what they promise, sending dead letters."""
