"""From saved labels to a published version: split, training, gate, versions."""
