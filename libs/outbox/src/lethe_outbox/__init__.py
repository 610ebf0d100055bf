"""A transactional outbox for SQLAlchemy and Kafka: ordered per key, lossless, with an inbox and dead letters."""
