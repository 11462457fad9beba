"""The HTTP side of the app: who may ask, what may be asked, and the routes that answer."""
