"""Services as people see them: which there are, what was asked of them, how they answered, what that cost."""
