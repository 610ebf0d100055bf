"""What is asked over HTTP: where requests stand, what is left, which records nobody could handle.

Every route needs a key with the scope `reporting:read`. A person appears as `subject_ref` only.
"""

from lethe_reporting.api.app import READ, SCOPES, create_app

__all__ = ["READ", "SCOPES", "create_app"]
