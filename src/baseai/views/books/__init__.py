"""The books as people read them: a month's sums, and the way from any sum down to leases and serials."""
