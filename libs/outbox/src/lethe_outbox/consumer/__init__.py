"""The other end: polling a group, each event handled once, what cannot be handled set aside."""
