"""baseai: the system on which an investor-funded GPU cloud runs."""

__version__ = "0.1.0"
