"""make deploy-test: build the images, bring the shipped compose file up on a real engine, see an event change a decision.

The engine is the one DOCKER_HOST names. Where an image of somebody else cannot be pulled, a stand-in with the same name,
ports, user and environment is built from tests/deploy/standins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from devstack.kafka import jars

ROOT = Path(__file__).resolve().parents[2]
STANDINS = ROOT / "tests" / "deploy" / "standins"
SHIPPED = ("docker-compose.yml", ".dockerignore", "deploy", "packages", "proto", "requirements", "services")


def docker(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the client; its output goes to the screen unless captured."""
    return subprocess.run(["docker", *arguments], check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def there(image: str) -> bool:
    """Whether the engine has an image, or can get it."""
    return any(
        subprocess.run(["docker", *words, image], check=False, capture_output=True, timeout=300).returncode == 0
        for words in (("image", "inspect"), ("pull", "-q"))
    )


def others(compose: Path) -> None:
    """Have the images that are not ours."""
    services = yaml.safe_load(compose.read_text())["services"].values()
    for image in sorted({s["image"] for s in services if "build" not in s}):
        if there(image):
            continue
        name = image.split(":")[0].split("/")[-1]
        print(f"{image} cannot be pulled: building the stand-in {name}", flush=True)
        context = ["--build-context", f"jars={jars()}"] if name == "kafka" else []
        docker("build", "-q", "-t", image, *context, str(STANDINS / name))


def main() -> int:
    """Answers 0 when the decision changed."""
    if subprocess.run(["docker", "version"], check=False, capture_output=True).returncode:
        print("No Docker engine answers; DOCKER_HOST names one")
        return 2
    with tempfile.TemporaryDirectory(prefix="footfall-deploy-") as folder:
        project = Path(folder)
        for name in SHIPPED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, project / name)  # type: ignore[operator]
        shutil.rmtree(project / "deploy" / "secrets")
        made = subprocess.run(
            [sys.executable, ROOT / "tools/make_secrets.py", project / "deploy/secrets"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        keys = dict(line.split("=", 1) for line in made.stdout.splitlines())
        compose = ("compose", "--project-directory", str(project), "--profile", "infra", "--profile", "app")
        others(project / "docker-compose.yml")
        try:
            docker(*compose, "build", "--quiet")
            began = time.monotonic()
            docker(*compose, "up", "-d", "--wait", "--wait-timeout", "180")
            print(f"healthy after {time.monotonic() - began:.0f} s", flush=True)
            named = [f"-e{name.upper()}" for name in ("merchant", "storefront")]
            environment = {**os.environ, **{name.upper(): text for name, text in keys.items()}}
            probe = (ROOT / "tests/deploy/probe.py").read_text()
            docker(*compose, "exec", "-T", *named, "gateway", "python", "-", input=probe, env=environment)
            return 0
        except subprocess.CalledProcessError:
            subprocess.run(["docker", *compose, "ps", "-a"], check=False)
            subprocess.run(["docker", *compose, "logs", "--tail", "40"], check=False)
            return 1
        finally:
            docker(*compose, "down", "-v", "--timeout", "10")


if __name__ == "__main__":
    sys.exit(main())
