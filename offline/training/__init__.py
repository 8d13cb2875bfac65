"""Examples, rewards, and the runs that train the models: cleaner, teacher, student."""
