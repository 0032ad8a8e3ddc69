"""Alembic's folder: one revision a file, never edited once released."""
