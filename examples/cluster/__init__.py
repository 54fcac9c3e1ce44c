"""Five small programs with `cluster`, one for each thing that people do with it; see README.md beside this file."""
