"""A data set surveyed: what each channel is for, and which are dead."""
