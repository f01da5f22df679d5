"""Corpora: every format is read into one list of canonical utterances, and split into parts that don't leak."""
