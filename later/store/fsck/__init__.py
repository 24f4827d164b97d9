"""Is each task where it must be, and each key what its name says? Judged in Python, read and mended by one script."""
