"""What tenants ask for: each kind of run turns its spec into a demand."""
