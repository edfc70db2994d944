"""Records: what every view is drawn from, as plain data, and the one file that keeps it. No torch in here."""
