"""Carrying a plan out: what each node shall run, what it reports, and what becomes of an attempt."""
