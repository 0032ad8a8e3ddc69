"""Services in PostgreSQL: what tenants ask for, what gateways are told, what the platform's loop does."""
