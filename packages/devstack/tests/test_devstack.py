"""The parts of make run: who may run, whose a port is, and servers whose first start was cut off."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from devstack import kafka as kafka_module
from devstack import process
from devstack import stack as stack_module
from devstack.claim import Claim, Runs, running
from devstack.kafka import Kafka, cluster_id, jars
from devstack.process import Child, PortTaken, StartFailed, bindable, free_port, listens
from devstack.servers import Postgres, Valkey
from devstack.stack import Secrets, Stack


class Stranger:
    """Somebody else's server: ready, whatever is asked, and listening to what it is told."""

    def __init__(self) -> None:
        heard: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(f"{self.path} {self.headers}")
                self.send_response(200)
                self.end_headers()

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.do_GET
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.heard, self._server = heard, ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with closing(Stranger()) as made:
        yield made


def first(port: int, then: Callable[[], int]) -> Callable[[], int]:
    """A free_port that was beaten to its first choice."""
    choices = iter([port])
    return lambda: next(choices, None) or then()


HOLDER = """
import os, sys, time
from pathlib import Path
from devstack.claim import Claim
from devstack.process import Child
claim = Claim(Path(sys.argv[1]))
claim.wait_for_leftovers()
child = Child("sleeper", ["sh", "-c", "trap '' TERM; echo; sleep 2"], Path(sys.argv[1]) / "log")
child.start()
while not child.log.read_bytes():
    time.sleep(0.01)
claim.announce(shop="there")
print(child.popen.pid, flush=True)
time.sleep(60)
"""


class TestClaim:
    def test_one_runs_and_the_next_learns_what_the_first_announced(self, tmp_path: Path) -> None:
        assert running(tmp_path) is None
        with closing(Claim(tmp_path)) as claim:
            claim.announce(shop="http://shop")
            found = running(tmp_path)
            assert found is not None
            assert found["shop"] == "http://shop"
            with pytest.raises(Runs) as refused:
                Claim(tmp_path)
            assert refused.value.found == found
        assert running(tmp_path) is None
        Claim(tmp_path).close()

    def test_a_killed_run_leaves_no_claim_and_the_next_waits_for_what_it_started(self, tmp_path: Path) -> None:
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        holder.stdout.close()
        assert running(tmp_path) is None, "what it announced is still in the file"
        assert psutil.pid_exists(child), "it does not end when asked"
        with closing(Claim(tmp_path)) as claim:
            claim.wait_for_leftovers()
            assert not alive(child)

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StartFailed, match=f"{tmp_path}/file/.run.*cannot be written"):
            Claim(tmp_path / "file" / ".run")


def test_a_short_command_ends_with_who_ran_it(tmp_path: Path) -> None:
    code = (
        "import sys; from devstack.process import finish; "
        "finish('sleep', ['sh', '-c', f'echo $$ > {sys.argv[1]}; exec sleep 60'])"
    )
    file = tmp_path / "pid"
    runner = subprocess.Popen([sys.executable, "-c", code, str(file)])
    while not (file.exists() and file.read_text()):
        assert runner.poll() is None
        time.sleep(0.02)
    runner.kill()
    runner.wait()
    end = time.monotonic() + 30
    while alive(int(file.read_text())):
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("kill -9 $$", "by SIGKILL"),
        ("exit 3", "with exit code 3"),
        ("exit 0", "with exit code 0"),
        ("kill -40 $$", "by signal 40"),
    ],
)
def test_what_ended_by_itself_says_how_before_it_is_started_again(tmp_path: Path, script: str, how: str) -> None:
    child = Child("short", ["sh", "-c", script], tmp_path / "log")
    child.start()
    assert child.popen is not None
    first = child.popen
    first.wait(10)
    stack = Stack(tmp_path, "", "", children={"short": child})
    assert [(ended.how, ended.popen is first) for ended in stack.mend()] == [(how, True)]
    assert child.popen is not first
    child.stop()


class TestPorts:
    def test_a_port_somebody_listens_on_cannot_be_had(self, stranger: Stranger) -> None:
        assert not bindable(stranger.port)
        assert bindable(free_port())

    def test_no_connection_that_goes_out_is_given_the_port_of_a_server_that_is_away_for_a_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "OUTGOING", tmp_path / "range")
        monkeypatch.setattr(process, "_given", set())
        process.OUTGOING.write_text("10003\t60999\n")
        with monkeypatch.context() as here:  # whatever else this machine runs there
            here.setattr(process, "bindable", lambda port: port != 10001)
            assert {free_port(), free_port()} == {10000, 10002}
            assert free_port() not in (10000, 10001, 10002), "each is given once"
        process.OUTGOING.write_text("1024\t60999\n")  # no room below
        assert bindable(free_port())

    def test_a_strangers_server_is_not_taken_for_our_child(self, stranger: Stranger, tmp_path: Path) -> None:
        child = Child("sleeper", ["sleep", "60"], tmp_path / "log")
        child.start()
        assert child.popen is not None
        assert not listens(child.popen.pid, stranger.port)
        with pytest.raises(StartFailed):
            child.wait_ready(stranger.port, seconds=0.3)
        assert child.popen is None, "it is ended, not left"

    @pytest.mark.servers
    def test_a_server_that_was_beaten_to_its_port_takes_another(
        self, stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "free_port", first(stranger.port, free_port))
        server = Valkey(tmp_path)
        server.start()
        assert server.port != stranger.port
        server.stop()
        server.port = stranger.port  # a server that is known by its port does not move
        with pytest.raises(PortTaken, match=str(stranger.port)):
            server.start()

    @pytest.mark.servers
    @pytest.mark.slow
    def test_the_gateway_beaten_to_its_port_moves_and_no_key_reaches_the_stranger(
        self,
        stranger: Stranger,
        services: Callable[..., AbstractContextManager[Stack]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        ports = iter([free_port(), free_port(), free_port(), stranger.port])
        monkeypatch.setattr(stack_module, "free_port", lambda: next(ports, None) or free_port())
        with services("beaten") as stack:
            assert stack.ports["gateway"] != stranger.port
            assert stack.serves("gateway")
        assert stranger.heard == []


class TestKafka:
    def test_a_cluster_id_never_begins_with_a_dash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Bytes:
            def __init__(self, made: bytes) -> None:
                self.bytes = made

        for byte in range(256):
            made = iter([bytes([byte] * 16), b"\0" * 16])
            monkeypatch.setattr(kafka_module.uuid, "uuid4", lambda made=made: Bytes(next(made)))
            found = cluster_id()
            assert len(found) == 22
            assert not found.startswith("-")

    def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home").touch()
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        with pytest.raises(StartFailed) as refused:
            jars()
        for word in (str(tmp_path / "home"), "XDG_CACHE_HOME", "KAFKA_BOOTSTRAP_SERVERS"):
            assert word in str(refused.value)

    def test_without_a_home_the_way_out_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", nowhere)
        with pytest.raises(StartFailed, match="XDG_CACHE_HOME"):
            jars()

    def test_a_failing_download_says_what_maven_said_and_the_way_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        maven = tmp_path / "mvn"
        maven.write_text("#!/bin/sh\necho Could not transfer artifact\nexit 1\n")
        maven.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with pytest.raises(StartFailed, match=r"(?s)Could not transfer artifact.*KAFKA_BOOTSTRAP_SERVERS"):
            jars()

    @pytest.mark.servers
    @pytest.mark.slow
    def test_a_format_that_was_cut_off_is_done_again_and_a_whole_one_is_kept(
        self, kafka: Kafka, tmp_path: Path
    ) -> None:
        data = tmp_path / "kafka" / "data"
        data.mkdir(parents=True)
        (data / "bootstrap.checkpoint").write_bytes(b"half")
        (data / "meta.properties").write_text("#\nvers")
        (tmp_path / "kafka" / "data.new").mkdir()
        made = []
        for _ in range(2):
            server = Kafka(tmp_path)
            server.start()
            made.append((data / "meta.properties").read_text())
            server.stop()
        assert made[0] == made[1]


@pytest.mark.servers
def test_an_initdb_that_was_cut_off_is_done_again(state: Path) -> None:
    home = state / "cut-off"
    (home / "postgres" / "data.new" / "base").mkdir(parents=True)
    server = Postgres(home)
    server.start()
    server.stop()


def test_secrets_are_kept_private_and_new_kinds_are_added_to_old_ones(tmp_path: Path) -> None:
    made = Secrets.of(tmp_path)
    file = tmp_path / "secrets.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text(file.read_text().replace('"session"', '"forgotten"'))
    again: Any = Secrets.of(tmp_path)
    assert again.service == made.service
    assert again.session not in ("", made.session)
    assert Secrets.of(tmp_path) == again


def test_a_command_that_make_help_names_can_be_pasted() -> None:
    root = Path(__file__).resolve().parents[3]
    said = subprocess.run(["make", "-s", "help"], cwd=root, check=True, capture_output=True, text=True).stdout
    assert 'eval "$(make -s keys)"\n' in said
