"""Costs of all time and what remains: assumptions in versions, energy, sites, ownership, margins, suggested prices."""
