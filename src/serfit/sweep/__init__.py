"""Many runs at once: configurations x folds x seeds on whatever slots there are, each run a `serfit train` of its own.

The run directories hold all truth. Repeating a sweep starts only what isn't finished, and goes on where it stopped.
"""
