"""The demo: a synthetic corpus in the IEMOCAP release layout, and one frozen against one unfrozen run on it."""
