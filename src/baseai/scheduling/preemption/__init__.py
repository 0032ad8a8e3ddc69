"""Preemptions: attempts that were asked to end so that another run could start."""
