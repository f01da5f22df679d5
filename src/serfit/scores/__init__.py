"""What a number means: scores, intervals, tests, calibration, and what stands beside them."""
