"""Logged experiments: one addable statistic, pure estimators over it, and the Beam job that fills it."""
