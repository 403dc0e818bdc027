"""A project with the app and its own test suite, which other tests run."""
