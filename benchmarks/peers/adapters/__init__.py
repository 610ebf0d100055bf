"""One adapter per peer, run by the peers' own Python: it has the peer and the standard library."""
