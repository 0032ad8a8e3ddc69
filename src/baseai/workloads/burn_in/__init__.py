"""What runs inside a burn-in: matrix products, memory, collectives and a soak, one worker on each accelerator."""
