"""Measured comparisons; nothing here is timed by a test."""
