"""Which node must be tested, what its tests came to, and how each accelerator stands against its like."""
