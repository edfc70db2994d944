"""What the layers of a network produce: its modules, hooks on them, what the axes mean, statistics and maps."""
