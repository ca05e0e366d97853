"""The demo shop: seven campaigns, real orders, seeded browsing."""
