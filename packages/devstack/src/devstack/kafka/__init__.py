"""Apache Kafka, one KRaft node, from Maven Central's jars: no Docker."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

from devstack.process import Child, StartFailed, free_port, listening

JVM = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
LOG4J = "rootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\nappender.out.type=Console\nappender.out.name=out\n"


def available() -> str | None:
    """None when Java and Maven are there, else what is missing."""
    return next((f"{tool} is not installed" for tool in ("java", "mvn") if shutil.which(tool) is None), None)


def jars() -> Path:
    """The folder of Kafka's jars, fetched once into the user's cache. Raises StartFailed when they cannot be had."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "footfall" / "kafka-4.1.0"
    if not (folder / "complete").exists():
        print("Fetching Apache Kafka 4.1.0 (43 MB, once)", flush=True)
        pom = Path(__file__).with_name("pom.xml")
        argv = [
            "mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}",
            "-DincludeScope=runtime",
        ]  # fmt: skip
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode:
            raise StartFailed("Maven could not fetch Apache Kafka:\n" + (done.stdout + done.stderr)[-1000:])
        (folder / "complete").touch()
    return folder


class Kafka:
    """Broker and controller in one process, its data in `state`; the ports stay the same for its life."""

    def __init__(self, state: Path) -> None:
        self._home = state / "kafka"
        self._home.mkdir(parents=True, exist_ok=True)
        self.port, self._controller = free_port(), free_port()
        self._child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format when new, start, and wait for the port."""
        libs = jars()
        config = self._home / "server.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()))
        (self._home / "log4j2.properties").write_text(LOG4J)
        java = ["java", *JVM, f"-Dlog4j2.configurationFile={self._home / 'log4j2.properties'}", "-cp", f"{libs}/*"]
        if not (self._home / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
            argv = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
            subprocess.run(argv, check=True, capture_output=True)
        self._child = Child("Kafka", [*java, "kafka.Kafka", str(config)], self._home / "log")
        self._child.start()
        self._child.wait_ready(lambda: listening(self.port), seconds=60)

    def _properties(self) -> dict[str, object]:
        here, control = f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{here},{control}",
            "advertised.listeners": here,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._home / "data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 500,
            "auto.create.topics.enable": "false",
            # A broker that was killed is let back in after this, not after the default 9 s.
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
        }

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop(seconds=20)

    def kill(self) -> None:
        """As a crash would end it."""
        if self._child is not None:
            self._child.kill()
