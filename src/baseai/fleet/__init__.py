"""What is installed where and who holds it: sites, nodes, accelerators, leases."""
