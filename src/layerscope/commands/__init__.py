"""Commands that do not fit into `cli.py` any more, one file each; nothing heavy is imported at the top."""
