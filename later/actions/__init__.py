"""What a due task can do. One file each; built-ins come through the same door as plug-ins."""
