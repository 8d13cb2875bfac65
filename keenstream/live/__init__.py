"""Simulated readers who use a running API: the whole system, closed-loop."""
