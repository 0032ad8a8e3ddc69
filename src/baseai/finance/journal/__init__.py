"""The books as files that other programs read: beancount text, and sheets of transfers and rated lines."""
