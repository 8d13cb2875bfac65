"""The main job, shown: a stack from nothing, a simulated world, three readers."""
