"""Stands in for the commands of a Slurm cluster: sbatch, squeue, scancel, scontrol requeue and srun, by its name.

State is in the folder FAKE_SLURM: `<job>_<element>` holds "state|script"; beside it are `.pid` while it runs, `.step`
(what gets signals) and `.requeue`.
A file `refuse` there makes sbatch refuse, `silent` makes squeue fail, `final` forbids requeueing.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path(os.environ["FAKE_SLURM"])


def elements() -> list[Path]:
    return sorted(path for path in PLACE.iterdir() if re.fullmatch(r"\d+(_\d+)?", path.name))


def say(element: Path, state: str) -> None:
    made = element.with_suffix(".new")
    made.write_text(f"{state}|{element.read_text().partition('|')[2]}")
    made.replace(element)


def sbatch(script: str) -> None:
    if (PLACE / "refuse").exists():
        sys.exit("sbatch: error: Batch job submission failed: Invalid partition name specified")
    number = 1 + max((int(element.name.partition("_")[0]) for element in elements()), default=0)
    text = Path(script).read_text()
    (PLACE / f"{number}.sh").write_text(text)
    array = re.search(r"--array=0-(\d+)%(\d+)", text)
    names = [f"{number}_{index}" for index in range(int(array[1]) + 1)] if array else [str(number)]
    for name in names:
        (PLACE / name).write_text(f"PENDING|{script}")
    most = array[2] if array else "1"
    command = [sys.executable, __file__, "schedule", str(PLACE / f"{number}.sh"), most, *names]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def schedule(script: str, most: str, *names: str) -> None:
    """Run the elements of an array, so many at a time, until all have ended."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    waiting = list(names)
    while waiting or running:
        for name in list(running):
            code = running[name].poll()
            if code is not None:
                del running[name]
                (PLACE / f"{name}.pid").unlink()
                if (PLACE / f"{name}.requeue").exists():
                    (PLACE / f"{name}.requeue").unlink()
                    waiting.append(name)
                    say(PLACE / name, "PENDING")
                else:
                    cancelled = (PLACE / name).read_text().startswith("COMPLETING")
                    say(PLACE / name, "CANCELLED" if cancelled else "FAILED" if code else "COMPLETED")
        while waiting and len(running) < int(most):
            name = waiting.pop(0)
            if not (PLACE / name).exists():
                continue
            job, _, element = name.partition("_")
            array = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": element} if element else {}
            environment = dict(os.environ) | {"SLURM_JOB_ID": name, "SLURM_PROCID": "0"} | array
            say(PLACE / name, "RUNNING")
            running[name] = subprocess.Popen(["bash", script], env=environment, start_new_session=True)
            (PLACE / f"{name}.pid").write_text(str(running[name].pid))
        time.sleep(0.05)


def squeue(*options: str) -> None:
    if (PLACE / "silent").exists():
        sys.exit("slurm_load_jobs error: Socket timed out on send/recv operation")
    assert "--format=%i|%T|%o" in options
    for element in elements():
        print(f"{element.name}|{element.read_text()}")


def scancel(*arguments: str) -> None:
    for name in (argument for argument in arguments if argument[0].isdigit()):
        step = PLACE / f"{name}.step"
        if arguments[0] == "--signal=USR2":
            os.kill(int(step.read_text()), signal.SIGUSR2)
        elif (PLACE / f"{name}.pid").exists():
            say(PLACE / name, "COMPLETING")
            os.kill(int(step.read_text()), signal.SIGTERM)
        else:
            (PLACE / name).unlink()


def scontrol(verb: str, name: str) -> None:
    assert verb == "requeue"
    if (PLACE / "final").exists():
        sys.exit("Requested operation is presently disabled")
    (PLACE / f"{name}.requeue").touch()


def srun(*arguments: str) -> None:
    assert arguments[:2] == ("--unbuffered", "--output")
    job, element = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    log = arguments[2].replace("%A", job).replace("%a", element).replace("%j", os.environ["SLURM_JOB_ID"])
    with open(log.replace("%t", "0"), "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    command = [argument for argument in arguments[3:] if not argument.startswith("--cpus-per-task=")]
    (PLACE / f"{os.environ['SLURM_JOB_ID']}.step").write_text(str(os.getpid()))
    os.execvp(command[0], command)


if __name__ == "__main__":
    name = Path(sys.argv[0]).name
    command, arguments = (sys.argv[1], sys.argv[2:]) if name == Path(__file__).name else (name, sys.argv[1:])
    globals()[command](*arguments)
