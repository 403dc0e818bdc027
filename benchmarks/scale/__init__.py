"""Measure what the size of the table of runs costs."""

DAYS = 60
"""The days of which there are runs."""
