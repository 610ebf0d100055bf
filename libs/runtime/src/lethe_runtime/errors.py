"""The root of this library's errors. Their texts are ours: no identifier or secret in them."""


class LetheRuntimeError(Exception):
    """Something this library refuses or gives up; the message may be shown and logged."""
