"""Access to a server: its API keys."""
