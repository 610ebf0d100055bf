"""A screen for the demo that remembers what was shown."""

from collections.abc import Mapping

from rich.console import RenderableType

from lethe_sandbox.progress import Done


class RememberingScreen:
    """Implements `lethe_sandbox.progress.Screen`."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.seen: list[Done] = []
        self.shown: list[RenderableType] = []
        self.expected_rows: Mapping[str, int] = {}
        self.expected_objects = 0
        self.expected_persons = 0

    def step(self, text: str) -> None:
        self.steps.append(text)

    def note(self, text: str) -> None:
        pass

    def expect(self, rows: Mapping[str, int], objects: int, persons: int) -> None:
        self.expected_rows = rows
        self.expected_objects = objects
        self.expected_persons = persons

    def progress(self, done: Done) -> None:
        self.seen.append(done)

    def finish(self) -> None:
        pass

    def show(self, result: RenderableType) -> None:
        self.shown.append(result)
