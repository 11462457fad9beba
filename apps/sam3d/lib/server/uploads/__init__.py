"""Sessions: volumes that clients send for a while."""
