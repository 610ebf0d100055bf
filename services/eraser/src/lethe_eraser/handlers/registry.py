"""Finds handlers: every module of this folder that has a `HANDLER`, under the module's name."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping

from lethe_eraser.catalog import Catalog, CatalogError, Feature, did_you_mean
from lethe_eraser.handlers.protocol import ErasureHandler, HandlerFactory, Objects


class Handlers:
    """The handlers of one catalog; called with a request type, the one that erases it."""

    def __init__(self, handlers: Iterable[ErasureHandler]) -> None:
        self._handlers = tuple(handlers)

    def __call__(self, request_type: str) -> ErasureHandler | None:
        """Give the handler of `request_type`, None if nobody knows the type."""
        return next((h for h in self._handlers if h.supports(request_type)), None)


def factories() -> dict[str, HandlerFactory]:
    """Give every handler's factory by its name in the catalog."""
    package = __package__ or ""
    found: dict[str, HandlerFactory] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        factory = getattr(importlib.import_module(f"{package}.{module.name}"), "HANDLER", None)
        if factory is not None:
            found[module.name] = factory
    return found


def build(
    catalog: Catalog, objects: Objects, known: Mapping[str, HandlerFactory] | None = None
) -> Handlers:
    """Make the handlers that the catalog's features name.

    Raises:
        CatalogError: A feature names a handler that does not exist, or options it does not take.
    """
    known = factories() if known is None else known
    by_handler: dict[str, dict[str, Feature]] = {}
    problems: list[str] = []
    for name, feature in catalog.features.items():
        if feature.handler not in known:
            problems.append(
                f"{feature.handler_at}: unknown handler"
                f" {feature.handler}; {did_you_mean(feature.handler, known)}"
            )
        by_handler.setdefault(feature.handler, {})[name] = feature
    handlers: list[ErasureHandler] = []
    for handler, features in by_handler.items():
        if handler in known:
            try:
                handlers.append(known[handler](features, catalog, objects))
            except CatalogError as error:
                problems += error.problems
    if problems:
        raise CatalogError(problems)
    return Handlers(handlers)
