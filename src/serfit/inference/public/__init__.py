"""Public models of others as serfit's bundles: `serfit import`. A module for each layout; no code of theirs is run."""
