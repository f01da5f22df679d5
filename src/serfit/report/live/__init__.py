"""Runs in progress, on the terminal and as a page."""
