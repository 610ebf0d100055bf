"""How one way of storing a request is erased; one module per way, found through the registry."""

from lethe_eraser.handlers.protocol import ErasureHandler, HandlerFactory, Objects, SourceReader
from lethe_eraser.handlers.registry import Handlers, build, factories

__all__ = [
    "ErasureHandler",
    "HandlerFactory",
    "Handlers",
    "Objects",
    "SourceReader",
    "build",
    "factories",
]
