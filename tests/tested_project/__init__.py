"""A project that has the app installed, with a test suite of its own that other tests run."""
