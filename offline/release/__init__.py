"""From trained weights to a model folder that Triton serves."""
