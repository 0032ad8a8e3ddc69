"""Customers, contracts, price lists, rates of exchange, usage events and rating, kept in the truth."""
