"""The app's routes, one module for each group; they replace MONAI Label's at the same paths."""
