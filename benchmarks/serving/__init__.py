"""Compare the API's speed with that of other stacks over the same rows."""
