"""Configuration of the app: `--conf` keys and weights."""
