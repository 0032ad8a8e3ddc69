"""What is measured of accelerators, nodes and ports: samples, windows, and their join to whoever used the device."""
