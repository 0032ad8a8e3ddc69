"""What the leased metal earns and costs: the meter, the transfers, and the books that hold them."""
