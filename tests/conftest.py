"""Fixtures shared by all tests. Everything is small, random and offline; nothing touches the user's caches."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
