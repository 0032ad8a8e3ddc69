"""The desk of health: events handed in, and a person's word."""
