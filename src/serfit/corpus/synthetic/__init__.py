"""A synthetic corpus in the release layout of IEMOCAP, for the demo and for tests."""
