"""What the admin is made of."""
