"""The platform's autoscaler and those it is compared with, each behind the same seam."""
