"""Who may do what: tenants, projects, keys, roles, join tokens, sign-in links, secrets."""
