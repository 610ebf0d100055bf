"""What the embedded stack needs to know of each server."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from lethe_sandbox.stack.folders import Folders
from lethe_sandbox.stack.instance import Instance
from lethe_sandbox.stack.process import Command


class Server(ABC):
    """One server program: how to install it, give it data, run it and talk to it."""

    name: ClassVar[str]
    port_count: ClassVar[int] = 1

    def __init__(self, folders: Folders, instance: Instance) -> None:
        self.folders = folders
        self.instance = instance
        self.ports: tuple[int, ...] = ()

    @property
    def port(self) -> int:
        """The port clients use."""
        return self.ports[0]

    @property
    def folder(self) -> Path:
        """Where it keeps its data."""
        return self.instance.folder / self.name

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.instance.logs / f"{self.name}.log"

    @abstractmethod
    def install(self) -> None:
        """Bring the program into the checkout, once.

        Raises:
            StackError: Something of the machine is missing.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make its data folder and configuration; called again when the ports change."""

    @abstractmethod
    def command(self) -> Command:
        """Say how to run it on `ports`."""

    @abstractmethod
    def answers(self) -> bool:
        """Exchange one real request with it; False while it cannot answer yet."""


def plain_environment(**more: str) -> dict[str, str]:
    """Give an environment without what steers other servers of the user (PGDATA, ...)."""
    kept = ("PATH", "HOME", "JAVA_HOME", "TMPDIR")
    return {k: os.environ[k] for k in kept if k in os.environ} | {"LC_ALL": "C.UTF-8"} | more
