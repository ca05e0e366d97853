"""Alembic revisions of the promo schema."""
