"""The demo: the whole main job on synthetic speech, frozen against unfrozen, in a few minutes on a CPU."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from serfit.config.load import load_config
from serfit.demo.corpus import synthetic_corpus
from serfit.demo.release import write_release
from serfit.experiment import run_experiment
from serfit.log import Log
from serfit.metrics import Scores
from serfit.report.compare import read_run, write_comparison
