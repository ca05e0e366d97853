"""What is outside: services, the identity provider, keys, counts."""
