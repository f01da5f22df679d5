"""Stands in for serfit where only the scheduling is tested: a run of some steps that leaves traces, and may die.

    fake_serfit.py train --run-dir DIR [key=value]...      or      train --resume DIR

Settings come from the environment: FAKE_SECONDS, FAKE_JOURNAL (a file that every event is appended to), FAKE_DEATHS (a
folder; each file in it kills one run once), FAKE_ERROR (part of the names of run directories that exit with code 2).
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def note(**event: object) -> None:
    line = json.dumps({"pid": os.getpid(), "time": time.time(), **event}) + "\n"
    with open(os.environ["FAKE_JOURNAL"], "a") as file:
        file.write(line)


def main() -> None:
    arguments = sys.argv[1:]
    resumed = "--resume" in arguments
    directory = Path(arguments[arguments.index("--resume" if resumed else "--run-dir") + 1])
    asked = []
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: asked.append(True))
    note(event="start", run=directory.name, gpu=os.environ.get("CUDA_VISIBLE_DEVICES"), resumed=resumed)
    if os.environ.get("FAKE_ERROR", "nothing at all") in directory.name:
        print("error: this configuration is wrong; mend it", file=sys.stderr)
        sys.exit(2)
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text('{"train": {"epochs": 4}}')
    done = directory / "done"
    count = int(done.read_text()) if done.exists() else 0
    while count < 4:
        time.sleep(float(os.environ["FAKE_SECONDS"]) / 4)
        count += 1
        done.write_text(str(count))
        for death in Path(os.environ["FAKE_DEATHS"]).glob("*"):
            try:
                death.unlink()
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        if asked:
            note(event="end", run=directory.name)
            sys.exit(75)
    note(event="end", run=directory.name)
    (directory / "FINISHED").write_text("")


if __name__ == "__main__":
    main()
