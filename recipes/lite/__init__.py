"""How the weights `lite` are stored; see README.md."""
