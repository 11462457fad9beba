"""Parts of the datastore: checks of what comes in, the index and how it is read when it is damaged."""
