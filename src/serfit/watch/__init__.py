"""Runs in progress and finished, seen from their records alone: state, diagnosis, terminal view, live page."""
