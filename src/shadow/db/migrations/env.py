"""Run by Alembic, inside the transaction of ``shadow.db.migrating``."""

from alembic import context

from shadow.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's, for all migrations together
    render_as_batch=True,
)
context.run_migrations()
