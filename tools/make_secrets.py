"""make secrets: files for docker-compose.yml in deploy/secrets, made once. Prints the three keys that people need."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from pathlib import Path

KEYS = {"storefront": "publishable", "server": "secret", "merchant": "admin"}
RINGS = ("visitor", "context", "edge", "aud")


def main(folder: Path) -> int:
    """Write what is missing; refuse to mix old and new."""
    if any(p for p in folder.glob("*") if p.name != ".gitignore"):
        print(f"{folder} is not empty: nothing was changed")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    password, keys = secrets.token_urlsafe(24), {name: secrets.token_urlsafe(32) for name in KEYS}
    listed = [
        {"id": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), "kind": KEYS[name], "role": "admin"}
        for name, text in keys.items()
    ]
    files = {
        "postgres_password": password,
        "database_url": f"postgresql://footfall:{password}@postgres:5432/footfall",
        "service_secret": secrets.token_urlsafe(32),
        **{f"{name}_keys": f"1:{secrets.token_urlsafe(32)}" for name in RINGS},
        **{f"{name}_key": secrets.token_urlsafe(32) for name in ("front", "purge")},
        "api_keys": json.dumps(listed),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o444)  # the folder is closed; the services read their files as uid 10001
    for name, text in keys.items():
        print(f"{name}={text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "deploy/secrets")))
