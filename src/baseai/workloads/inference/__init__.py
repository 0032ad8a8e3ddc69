"""Inference: one replica of a service loads one model and answers requests until it is told to stop."""
