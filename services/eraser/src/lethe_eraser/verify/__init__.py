"""The second scan, of rows, objects and the CDN, and the end of a job."""

from lethe_eraser.verify.invalidate import Invalidator
from lethe_eraser.verify.verification import Verification

__all__ = ["Invalidator", "Verification"]
