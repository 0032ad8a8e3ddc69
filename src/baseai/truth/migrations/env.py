"""Alembic's entry: runs the revisions on the connection that `migrate` opened and locked."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()
