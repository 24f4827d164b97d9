"""Later keeps a task durably and performs its action at its moment."""

__version__ = "0.1.0"
