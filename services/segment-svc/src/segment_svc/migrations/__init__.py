"""Alembic revisions of the segment schema."""
