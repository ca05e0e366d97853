"""Alembic revisions of the content schema."""
