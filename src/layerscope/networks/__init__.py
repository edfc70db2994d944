"""Networks: by name, from the user's code, or recognised from a checkpoint."""
