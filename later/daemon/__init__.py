"""The one process that performs due tasks."""
