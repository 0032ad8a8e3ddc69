"""The engines: each loads one form of model and computes with it."""
