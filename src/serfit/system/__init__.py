"""What runs touch of the machine: files whole or absent, locks, signals, devices, time."""
