"""Infer tasks, which compute masks for requests."""
