"""What the app is configured with: `--conf` keys and weights."""
