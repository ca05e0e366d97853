"""Apache Kafka, one KRaft node, from Maven Central's jars: no Docker."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from pathlib import Path

from devstack.process import LOOPBACK, Child, StartFailed, finish, free_port, on_free_port

VERSION = "4.1.0"
JVM = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
LOG4J = "rootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\nappender.out.type=Console\nappender.out.name=out\n"
HINT = (
    "Set XDG_CACHE_HOME to a folder that you may write and that others may enter, "
    "or KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs."
)


def available() -> str | None:
    """None when Kafka can run here, else what is missing."""
    tools = ("java",) if _fetched() else ("java", "mvn")
    return next((f"{tool} is not installed" for tool in tools if shutil.which(tool) is None), None)


def _cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "footfall"
    except RuntimeError:
        raise StartFailed(f"there is no home folder to keep Apache Kafka in. {HINT}") from None


def _fetched() -> bool:
    try:
        return (_cache() / f"kafka-{VERSION}" / "complete").exists()
    except (StartFailed, OSError):
        return False


def jars() -> Path:
    """The folder of Kafka's jars, fetched once into the user's cache. Raises StartFailed when they cannot be had."""
    folder = _cache() / f"kafka-{VERSION}"
    if _fetched():
        return folder
    print(f"Fetching Apache Kafka {VERSION} (43 MB, once) into {folder}", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "begun").touch()
    except OSError as error:
        raise StartFailed(f"Apache Kafka cannot be kept in {folder}: {error.strerror}. {HINT}") from None
    argv = [
        "mvn", "-q", "-B", "-f", str(Path(__file__).with_name("pom.xml")), "dependency:copy-dependencies",
        f"-DoutputDirectory={folder}", "-DincludeScope=runtime", f"-Dmaven.repo.local={_repository()}",
    ]  # fmt: skip
    try:
        finish("Maven's download of Apache Kafka", argv)
    except StartFailed as error:
        raise StartFailed(f"{error}\n{HINT}") from None
    (folder / "complete").touch()
    return folder


def _repository() -> Path:
    """Where Maven keeps what it fetched: its usual place, or our cache where that cannot be written."""
    try:
        usual = Path.home() / ".m2" / "repository"
        usual.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):
        return _cache() / "maven"
    return usual if os.access(usual, os.W_OK) else _cache() / "maven"


def cluster_id() -> str:
    """A new cluster's id: 16 bytes, url-safe base64. Never with a dash in front, which Kafka's tools take for an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


class Kafka:
    """Broker and controller in one process, its data in `state`; the port stays the same for its life."""

    def __init__(self, state: Path) -> None:
        self._home = state / "kafka"
        self._home.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self.child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """host:port"""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Format when new, start, and wait for the port."""
        libs = jars()
        (self._home / "log4j2.properties").write_text(LOG4J)
        java = ["java", *JVM, f"-Dlog4j2.configurationFile={self._home / 'log4j2.properties'}", "-cp", f"{libs}/*"]
        self._format(java)
        self.port = on_free_port(lambda port: self._serve(java, port), self.port)

    def _format(self, java: list[str]) -> None:
        """A new cluster is made aside and moved into place whole; what a cut off attempt left is made again."""
        data, aside = self._home / "data", self._home / "data.new"
        made = data / "meta.properties"
        if made.exists() and "cluster.id=" in made.read_text():
            return
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
        config = self._configure(free_port(), aside)
        finish("Kafka's format", [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", str(config)])
        aside.rename(data)

    def _serve(self, java: list[str], port: int) -> None:
        config = self._configure(port, self._home / "data")
        self.child = Child("Kafka", [*java, "kafka.Kafka", str(config)], self._home / "log")
        self.child.start()
        self.child.wait_ready(port, seconds=60)

    def _configure(self, port: int, data: Path) -> Path:
        config = self._home / "server.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in _properties(port, free_port(), data).items()))
        return config

    def stop(self) -> None:
        """Stop it."""
        if self.child is not None:
            self.child.stop(seconds=20)

    def kill(self) -> None:
        """As a crash would end it."""
        if self.child is not None:
            self.child.kill()


def _properties(port: int, controller: int, data: Path) -> dict[str, object]:
    here, control = f"PLAINTEXT://{LOOPBACK}:{port}", f"CONTROLLER://{LOOPBACK}:{controller}"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        "listeners": f"{here},{control}",
        "advertised.listeners": here,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
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
