"""What happens to every request before a route answers it."""
