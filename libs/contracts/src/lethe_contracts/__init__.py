"""The published language of Lethe: what services say to each other, and nothing of how they work.

Other members import from the modules below by name (`from lethe_contracts.events import Requested`).
"""
