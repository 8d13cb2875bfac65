"""The live readers."""
