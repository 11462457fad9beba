"""The HTTP server of the app: access, checks of requests, and routes."""
