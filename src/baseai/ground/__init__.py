"""What every room stands on: ids, money, quantities, the clock and faults. Standard library only."""
