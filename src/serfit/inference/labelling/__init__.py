"""`serfit predict`: a list of recordings labelled, resumably."""
