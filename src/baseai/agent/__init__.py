"""The node's own process: it fetches what this node shall run, makes it so, and says what it saw.

Invariant: the agent may die at any instant. Runs live on under their shims, what was seen lies in the spool,
and the next agent on the same folder adopts both.
"""
