"""One experiment, from corpus to finished run directory."""
