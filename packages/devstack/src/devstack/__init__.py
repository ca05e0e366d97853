"""One command: real servers without Docker, all four services, the demo shop; and the same servers for tests."""
