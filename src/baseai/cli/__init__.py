"""The terminal: a door that speaks HTTP to the API and shares only its shapes."""
