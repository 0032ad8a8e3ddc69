"""What people see of runs, fleet and queue, joined over the rooms that keep them. It reads; it never writes."""
