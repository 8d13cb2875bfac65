"""Articles and events from files."""
