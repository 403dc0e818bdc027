"""A project of somebody else's: its own users, its own workers, and the app `systemtasks`."""
