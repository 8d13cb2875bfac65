"""Events in, profiles and query requests out."""
