"""PostgreSQL, the one place of truth: embedding it, migrating it, and transactions in a tenant's scope."""
