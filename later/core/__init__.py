"""What Later means: tasks, moments, retries and errors. No I/O, no clock and no chance of its own."""
