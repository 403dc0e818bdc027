"""A made history of a shop's tasks: for a look around, for the docs' pictures and for tests.

`catalogue` says which tasks there are, `making` makes their runs, and `writing` writes them.
"""
