"""Another project: it has its own users and workers, and the app `systemtasks`."""
