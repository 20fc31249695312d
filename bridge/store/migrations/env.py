"""Alembic's entry: runs the migrations on the connection that `database.migrate` hands over."""

from alembic import context

from bridge.store.schema import metadata

# Batch mode, as SQLite can't alter most of a table in place.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
