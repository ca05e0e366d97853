"""Brings a schema up to date with the Alembic revisions in `<package>.migrations`, one process at a time."""

from __future__ import annotations

import importlib
import zlib
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from chassis.db import engine_of


async def upgrade(url: str, *, schema: str, package: str) -> None:
    """Create the schema if need be and run what is missing. Waits at most 10 s for any lock."""
    engine = engine_of(url, schema=schema).execution_options(isolation_level="READ COMMITTED")
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(schema.encode())})
            await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            await connection.run_sync(_upgrade, schema, package)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, schema: str, package: str) -> None:
    config = Config()
    home = Path(str(importlib.import_module(package).__file__)).parent / "migrations"
    config.set_main_option("script_location", str(home))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)

    def steps(revision: object, _: object) -> object:
        return scripts._upgrade_revs("head", revision)  # type: ignore[arg-type]

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(connection=connection, version_table_schema=schema, transactional_ddl=True)
        environment.run_migrations()
