"""The root of this library's errors. Their texts are ours: no identifier or secret in them."""


class LetheRuntimeError(Exception):
    """Something this library refuses or gives up; the message may be shown and logged."""


def is_ours(error: BaseException) -> bool:
    """Say whether a member of Lethe wrote this error's text, so that it may be shown and logged."""
    return type(error).__module__.partition(".")[0].startswith("lethe_")
