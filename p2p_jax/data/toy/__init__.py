"""Toy data, drawn rather than downloaded."""
