"""Train tasks, which make a new version of the weights from saved labels."""
