"""How sure one can be of a CCC, and of the difference of two."""
