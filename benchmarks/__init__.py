"""Figures, each by one command; see README.md."""
