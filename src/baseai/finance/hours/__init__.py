"""The time ledger in the truth: hours closed, counted anew, checked and told."""
