"""Train tasks: saved labels -> a new version of the weights."""
