"""The run directory: its names, its records, written and read back; runs gathered into experiments."""
