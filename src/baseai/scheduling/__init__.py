"""Who runs where, who waits and why: a pure decision over one snapshot of the fleet and the queue."""
