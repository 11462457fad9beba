"""Parts of the MONAI Label app, one idea a file; MONAI Label imports them as `lib` while it loads main.py."""
