"""FOCUS 1.4: what was charged, agreed and invoiced, in a form that customers' own tools read, and its checker."""
