"""Publishes outbox rows to Kafka, in order per person."""
