"""The published language of Lethe: what services say to each other, not how they work.

Other members import from its modules by name: `from lethe_contracts.events import Requested`.
"""
