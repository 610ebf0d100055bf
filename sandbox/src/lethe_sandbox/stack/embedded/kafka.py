"""Apache Kafka in KRaft mode: one node that is broker and controller."""

import base64
import os
import re
import secrets
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import ClassVar, Final

from lethe_sandbox.stack import probes
from lethe_sandbox.stack.embedded.server import Server, plain_environment
from lethe_sandbox.stack.folders import make_private
from lethe_sandbox.stack.instance import exclusive
from lethe_sandbox.stack.interface import ServerName, StackError
from lethe_sandbox.stack.process import Command

_VERSION: Final = "4.1.0"
_JAVA: Final = 17
_POM: Final = Path(__file__).with_name("pom.xml")
# A killed broker may not register again before its old session ended, hence the short one.
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=data
auto.create.topics.enable=false
num.partitions=16
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
"""
_LOGGING: Final = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    # Several hundred lines of settings at every start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
)


class Kafka(Server):
    """One Kafka node on two ports, for clients and for its own controller."""

    name: ClassVar[ServerName] = "kafka"
    port_count: ClassVar[int] = 2

    @property
    def bootstrap(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.port}"

    @property
    def _jars(self) -> Path:
        return self.folders.base / f"kafka-{_VERSION}"

    def install(self) -> None:
        """Bring the jars through Maven, once."""
        find_java()
        with exclusive(self.folders.base / "kafka.lock"):
            if self._jars.is_dir():
                return
            maven = shutil.which("mvn")
            if maven is None:
                raise StackError("Kafka needs Maven once: apt-get install maven")
            draft = self._jars.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            done = subprocess.run(  # noqa: S603 - our own command
                [
                    *(maven, "-q", "-B", "-f", _POM, "dependency:copy-dependencies"),
                    f"-DoutputDirectory={draft}",
                ],
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                log = self.folders.base / "kafka-install.log"
                log.write_text(done.stdout + done.stderr)
                raise StackError(f"Maven could not bring Kafka: see {log}")
            draft.replace(self._jars)

    def prepare(self) -> None:
        """Write the configuration and format the data folder."""
        make_private(self.folder)
        properties = _PROPERTIES.format(broker=self.port, controller=self.ports[1])
        (self.folder / "server.properties").write_text(properties)
        if (self.folder / "data").exists():
            return
        # 16 random bytes without the padding; a leading dash would read as an option.
        cluster = "L" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[1:22]
        done = subprocess.run(  # noqa: S603 - our own command
            [
                *self._java(
                    "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
                ),
                *("kafka.tools.StorageTool", "format", "-t", cluster, "-c", "server.properties"),
            ],
            cwd=self.folder,
            env=plain_environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_text(done.stdout + done.stderr)
            raise StackError(f"Kafka could not format its folder: see {self.log}")

    def command(self) -> Command:
        """Run with a heap that fits beside everything else."""
        options = ("-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:TieredStopAtLevel=1", *_LOGGING)
        return Command(
            argv=[*self._java(*options), "kafka.Kafka", "server.properties"],
            folder=self.folder,
            log=self.log,
            environment=plain_environment(),
        )

    def _java(self, *options: str) -> list[str]:
        return [find_java(), *options, "-cp", f"{self._jars}/*"]

    def answers(self) -> bool:
        """Ask for the cluster as a client does."""
        return probes.kafka_answers(self.bootstrap)


@cache
def find_java() -> str:
    """Find a Java that is new enough, also when an older one is the machine's default.

    Raises:
        StackError: there is none.
    """
    chosen = Path(os.environ.get("JAVA_HOME", "/nowhere")) / "bin" / "java"
    for java in [chosen, shutil.which("java"), *sorted(Path("/usr/lib/jvm").glob("*/bin/java"))]:
        if java is None or not Path(java).exists():
            continue
        said = subprocess.run(  # noqa: S603 - our own command
            [java, "-version"], check=False, capture_output=True, text=True
        )
        found = re.search(r'version "(\d+)', said.stderr)
        if found is not None and int(found[1]) >= _JAVA:
            return str(java)
    raise StackError(
        f"Kafka needs Java {_JAVA} or newer: apt-get install openjdk-{_JAVA}-jre-headless"
    )
