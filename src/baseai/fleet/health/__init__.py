"""Health: what evidence there is against accelerators and nodes, what follows from it, and what is done about it."""
