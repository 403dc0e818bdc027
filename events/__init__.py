"""Everything HTTP: who may ask, what they may ask, and what they are told."""
