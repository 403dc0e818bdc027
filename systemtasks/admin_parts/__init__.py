"""The parts of the admin. Importing this package registers nothing."""
