"""How a process lives. Knows nothing of what any service is about."""
