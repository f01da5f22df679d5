"""Calibration: a monotone map per dimension from what a network says to what raters say.

    maps        the maps, and how they are fitted
    record      those that a run carries: fitted to its validation part when it finishes, kept in calibration.json
    coverage    what they change, before and after, and which intervals hold

Maps are fitted to validation.csv of a run, which its network never trained on (it did choose the epoch), and never
touch its test part. Nothing is calibrated unless asked. Nothing here knows torch.
"""
