"""What the course of a run says about it."""
