"""What is logged as critical also goes to Sentry, where a DSN is set (extra `sentry`).

An event says what the log line says and no more: no exception text, no local variables, no
breadcrumbs, no host name, because those quote what a driver was given, and that names people.
"""

import logging
from typing import Any, Final

from pydantic import SecretStr

from lethe_runtime.errors import LetheRuntimeError
from lethe_runtime.logging import error_class

_PATIENCE_SECONDS: Final = 2.0
"""How long a process that ends waits for what is still to be sent."""
_LINE_FIELDS: Final = frozenset({"event", "level", "logger", "timestamp"})
"""Fields of a line that have a place of their own in Sentry's event."""


class SentryError(LetheRuntimeError):
    """A DSN is set that cannot be used; the message does not quote it."""


def configure(service: str, dsn: SecretStr | None) -> None:
    """Send the process's critical log lines to Sentry; without a DSN do nothing.

    Sending happens in a thread and never holds up who logs; what Sentry does not take is lost.

    Raises:
        SentryError: the extra is not installed, or the DSN is none.
    """
    if dsn is None:
        return
    try:
        import sentry_sdk  # noqa: PLC0415 - an extra
        from sentry_sdk.integrations.atexit import AtexitIntegration  # noqa: PLC0415 - likewise
        from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415 - likewise
        from sentry_sdk.utils import BadDsn  # noqa: PLC0415 - likewise
    except ModuleNotFoundError:
        raise SentryError("a Sentry DSN is set; it needs the extra lethe-runtime[sentry]") from None
    try:
        sentry_sdk.init(
            dsn.get_secret_value(),
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[
                LoggingIntegration(level=None, event_level=logging.CRITICAL),
                AtexitIntegration(callback=lambda _pending, _timeout: None),
            ],
            before_send=lambda event, hint: _only_the_line(service, event, hint),  # type: ignore[arg-type, return-value] # events are plain dictionaries here
            include_local_variables=False,
            max_breadcrumbs=0,
            server_name="",
            shutdown_timeout=_PATIENCE_SECONDS,
            send_client_reports=False,
            auto_session_tracking=False,
        )
    except BadDsn:
        raise SentryError("the Sentry DSN that is set is none") from None


def _only_the_line(service: str, event: Any, hint: Any) -> dict[str, Any] | None:
    """Keep of Sentry's event what the log line says."""
    record = hint.get("log_record")
    if not isinstance(record, logging.LogRecord):
        return None
    # structlog hands its whole line over as the message.
    line = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
    said = str(line.get("event", ""))
    raised = record.exc_info[1] if record.exc_info else None
    found = {name: value for name, value in line.items() if name not in _LINE_FIELDS}
    if raised is not None:
        found["error_class"] = error_class(raised)
    return {
        "event_id": event["event_id"],
        "timestamp": event["timestamp"],
        "platform": "python",
        "level": "fatal",
        "logger": record.name,
        "logentry": {"message": said},
        "tags": {"service": service},
        "extra": {name: str(value) for name, value in found.items() if name != "exc_info"},
        # One alarm is one issue, whatever numbers its text holds.
        "fingerprint": [record.name, said if isinstance(record.msg, dict) else str(record.msg)],
    }
