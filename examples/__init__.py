"""Programs that show the packages at work: one process, many processes, many machines, the same file."""
