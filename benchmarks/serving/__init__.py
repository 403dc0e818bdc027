"""How fast the API answers, beside what others answer over the same rows."""
