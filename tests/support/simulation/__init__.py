"""Relays in virtual time: their real code on a model of PostgreSQL and Kafka.

Every relay has an event loop of its own that can be frozen or killed. Which loop goes on next, and
how long each statement and each request takes, is drawn from a seed; so minutes of faults take
seconds. (The order of sets of objects is Python's, so the same seed is nearly the same run.)
"""
