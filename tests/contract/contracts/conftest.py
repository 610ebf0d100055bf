"""Property tests take the time they need: the machine may be busy."""

from hypothesis import settings

settings.register_profile("busy", settings.default, deadline=None)
settings.load_profile("busy")
