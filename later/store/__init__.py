"""Where live tasks are kept. Only this package speaks Redis."""
