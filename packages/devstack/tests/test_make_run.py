"""python -m devstack as somebody new meets it: started twice, killed, interrupted, on taken ports, without Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest
from devstack.claim import Claim, running
from devstack.kafka import Kafka
from devstack.process import free_port
from devstack.servers import Postgres, Valkey

pytestmark = [pytest.mark.servers, pytest.mark.slow]
PATIENCE_S = 120


HEARS = """
import signal, sys
from devstack.__main__ import interruptible
interruptible()
signal.alarm(60)  # so that a signal nobody hears is a failure, not a wait
try:
    print("up", flush=True)
    signal.pause()
except KeyboardInterrupt:
    print("ending", flush=True)
    sys.stdin.readline()
    print("ended", flush=True)
"""


def ignored() -> None:
    """What a shell without job control does for a command in the background; without what a nohup around us does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def module(name: str, home: Path, env: Mapping[str, str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", name], cwd=home, env={**os.environ, **env}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more,
    )  # fmt: skip


def finished(name: str, home: Path, env: Mapping[str, str]) -> tuple[int, str]:
    process = module(name, home, env)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


class Run:
    """One `make run` in the background; `said` grows."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self.home, self.said = home, ""
        self.process = module("devstack", home, env, preexec_fn=ignored)
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self.said += line

    def until(self, done: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def up(self) -> Run:
        self.until(lambda: "gateway" in (running(self.home / ".run") or {}))
        return self

    def end(self, sig: signal.Signals) -> int:
        self.process.send_signal(sig)
        status = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status


@pytest.fixture
def env() -> dict[str, str]:
    return {"PORT": str(free_port()), "SHOP_PORT": str(free_port())}


@pytest.fixture
def servers(env: dict[str, str], database: str, redis_url: str, kafka: Kafka) -> dict[str, str]:
    """Servers that are there already, so that a start is quick."""
    return {**env, "DATABASE_URL": database, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap}


@pytest.fixture
def home(state: Path, request: pytest.FixtureRequest) -> Path:
    folder = state / f"checkout-{abs(hash(request.node.name)):x}"
    folder.mkdir()
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[Mapping[str, str]], Run]]:
    runs: list[Run] = []

    def begin(env: Mapping[str, str]) -> Run:
        runs.append(Run(home, env))
        return runs[-1]

    yield begin
    for run in runs:
        run.end(signal.SIGTERM)
    assert nothing_left(home)


def nothing_left(home: Path) -> bool:
    """Whether nothing that a run in this folder started still runs: the kernel's own word, not a list of names."""
    claim = Claim(home / ".run")
    claim.wait_for_leftovers()
    claim.close()
    return True


def children(run: Run) -> set[int]:
    return {child.pid for child in psutil.Process(run.process.pid).children(recursive=True)}


def merchant(home: Path, env: Mapping[str, str]) -> httpx.Client:
    """Who publishes in a run."""
    key = json.loads((home / ".run" / "secrets.json").read_text())["admin"]
    return httpx.Client(base_url=f"http://127.0.0.1:{env['PORT']}/admin/v1", headers={"x-api-key": key})


def publish(home: Path, env: Mapping[str, str]) -> None:
    """A segment that a slot of the demo depends on from now on."""
    content = {"*": {"schemaVersion": 1, "blocks": [{"id": "a", "type": "heading", "props": {"text": "Lamps"}}]}}
    where = {"field": "sku", "op": "eq", "value": "LAMP"}
    condition = {"events": {"type": "product_view", "count": {"op": "gte", "value": 1}, "where": where}}
    with merchant(home, env) as admin:
        body = {"key": "lamps", "name": "L", "status": "active", "condition": condition}
        assert admin.post("/segments", json=body).status_code == 201
        block = {"key": "lamps", "title": "L", "status": "live", "slots": ["home.note"], "content": content}
        assert admin.post("/blocks", json={**block, "audience": {"any_of": ["lamps"]}}).status_code == 201


class TestTwice:
    def test_a_second_start_says_so_and_changes_nothing_and_a_killed_one_hinders_nobody(
        self, home: Path, env: dict[str, str], start: Callable[[Mapping[str, str]], Run], kafka: Kafka
    ) -> None:
        first = start(env).up()
        before = children(first)
        status, said = finished("devstack", home, env)
        assert status == 0
        assert f"process {first.process.pid}" in said
        assert f"http://localhost:{env['SHOP_PORT']}/" in said
        assert children(first) == before
        assert httpx.get(f"http://127.0.0.1:{env['PORT']}/readyz?exclude=edge").status_code == 200

        status, said = finished("devstack.tour", home, env)
        assert status == 0, said
        assert "7 of 7" in said

        publish(home, env)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        status, said = finished("devstack.tour", home, env)
        assert (status, said.count("\n")) == (1, 1), said
        second = start(env).up()
        second.until(lambda: "Footfall is up" in second.said)
        assert "The demo shop is there already" in second.said
        with merchant(home, env) as admin:
            assert admin.get("/blocks/lamps").json()["audience"]["any_of"] == ["lamps"]
        assert second.end(signal.SIGINT) == 0

    def test_what_ends_by_itself_is_started_again(
        self, servers: dict[str, str], start: Callable[[Mapping[str, str]], Run]
    ) -> None:
        run = start({n: v for n, v in servers.items() if n != "REDIS_URL"}).up()
        for what, name in (("gateway", "gateway"), ("valkey-server", "Valkey")):
            child = next(c for c in psutil.Process(run.process.pid).children() if what in " ".join(c.cmdline()))
            child.kill()
            run.until(lambda name=name: f"{name} ended by SIGKILL and is started again" in run.said)
            run.until(lambda: ready(servers["PORT"]))


def ready(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz?exclude=edge").status_code == 200
    except httpx.HTTPError:
        return False


class TestEnds:
    @pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_every_signal_to_end_is_heard_in_the_background_and_the_next_one_does_not_disturb(
        self, sig: signal.Signals
    ) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", HEARS], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=ignored
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(sig)
        assert [process.stdout.readline() for _ in range(3)] == ["\n", "Stopping\n", "ending\n"]
        process.send_signal(sig)
        assert process.communicate("go on\n", timeout=PATIENCE_S)[0] == "ended\n"
        assert process.returncode == 0

    def test_a_signal_in_the_background_ends_everything(
        self, home: Path, servers: dict[str, str], start: Callable[[Mapping[str, str]], Run]
    ) -> None:
        run = start(servers).up()
        started = children(run)
        assert run.end(signal.SIGINT) == 0, run.said
        assert not [pid for pid in started if psutil.pid_exists(pid)], "it has waited for all of them"
        for name in ("devstack.tour", "devstack.keys"):
            status, said = finished(name, home, servers)
            assert status == 1
            assert "make run" in said
            assert said.count("\n") == 1, said

    def test_a_signal_during_the_start_cleans_up(
        self, home: Path, env: dict[str, str], start: Callable[[Mapping[str, str]], Run], kafka: Kafka
    ) -> None:
        run = start(env)
        run.until(lambda: (home / ".run" / "kafka" / "log").exists())
        started = children(run)
        assert run.end(signal.SIGINT) == 0, run.said
        assert "Traceback" not in run.said
        assert not [pid for pid in started if psutil.pid_exists(pid)]
        start(env).up()  # whatever was half done is done again


class TestTaken:
    @pytest.mark.parametrize("setting", ["PORT", "SHOP_PORT"])
    def test_a_taken_port_is_named_with_its_setting_before_anything_starts(
        self, setting: str, home: Path, env: dict[str, str], valkey: Valkey
    ) -> None:
        status, said = finished("devstack", home, {**env, setting: str(valkey.port)})
        assert status == 1
        assert f"port {valkey.port}" in said
        assert f"{setting}=" in said
        assert {p.name for p in (home / ".run").iterdir()} == {"lock", "children"}

    @pytest.mark.parametrize("text", ["x", "0", "70000"])
    def test_a_port_that_is_none_is_refused(self, text: str, home: Path, env: dict[str, str]) -> None:
        status, said = finished("devstack", home, {**env, "SHOP_PORT": text})
        assert status == 1
        assert "SHOP_PORT is a port" in said
        assert "Traceback" not in said


class TestWithout:
    def test_java_and_varnish_it_runs_as_the_banner_says(
        self, home: Path, servers: dict[str, str], start: Callable[[Mapping[str, str]], Run]
    ) -> None:
        path = home / "bin"
        path.mkdir()
        env = {**servers, "KAFKA_BOOTSTRAP_SERVERS": "", "PATH": str(path)}
        run = start(env).up()
        run.until(lambda: "Footfall is up" in run.said)
        assert "No Kafka (java is not installed)" in run.said
        assert "No Varnish (varnishd is not installed" in run.said
        status, said = finished("devstack.tour", home, env)
        assert status == 0, said

    def test_a_home_that_can_be_written_it_says_where_to_put_kafka(self, home: Path, postgres: Postgres) -> None:
        (home / "home").touch()
        env = {"HOME": str(home / "home"), "XDG_CACHE_HOME": "", "DATABASE_URL": postgres.url, "REDIS_URL": "redis://x"}
        status, said = finished("devstack", home, {**env, "PORT": str(free_port()), "SHOP_PORT": str(free_port())})
        assert status == 1
        assert "XDG_CACHE_HOME" in said
        assert "Traceback" not in said

    def test_a_folder_that_can_be_written_it_says_which(self, home: Path, env: dict[str, str]) -> None:
        (home / ".run").touch()
        status, said = finished("devstack", home, env)
        assert status == 1
        assert f"{home}/.run" in said
        assert "Traceback" not in said


class TestMake:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """This checkout without what was set up and run in it."""
        for path in Path(__file__).parents[3].iterdir():
            if path.name not in (".venv", ".run", ".git"):
                (tmp_path / path.name).symlink_to(path)
        return tmp_path

    def test_packages_that_cannot_be_fetched_are_told_in_words(self, checkout: Path) -> None:
        nowhere = {"PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/", "PIP_RETRIES": "0", "PIP_FIND_LINKS": ""}
        done = make(checkout, "run", nowhere)
        assert done.returncode != 0
        assert "could not be fetched" in done.stdout
        assert "PIP_INDEX_URL" in done.stdout
        assert not (checkout / ".venv" / "ready").exists()

    def test_clean_does_not_take_the_data_of_what_runs(self, checkout: Path) -> None:
        claim = Claim(checkout / ".run")
        refused = make(checkout, "clean", {})
        assert refused.returncode != 0
        assert "Footfall runs" in refused.stdout
        assert (checkout / ".run").exists()
        claim.close()
        assert make(checkout, "clean", {}).returncode == 0
        assert not (checkout / ".run").exists()
        assert make(checkout, "clean", {}).returncode == 0


def make(checkout: Path, target: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", target], check=False, cwd=checkout, env={**os.environ, **env}, capture_output=True, text=True
    )


def test_the_tour_tells_a_failure_in_a_sentence(home: Path) -> None:
    (home / ".run").mkdir()
    claim = Claim(home / ".run")
    claim.announce(gateway=f"http://127.0.0.1:{free_port()}", shop="", kafka="")
    status, said = finished("devstack.tour", home, {})
    claim.close()
    assert status == 1
    assert said.startswith("The tour stopped")
    assert "Traceback" not in said
    assert json.loads((home / ".run" / "secrets.json").read_text())
