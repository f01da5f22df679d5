"""The user's guide, applied: what a run's records say about it, and what to try."""

from serfit.watch.duration import slow_epoch
from serfit.watch.finding import Finding
from serfit.watch.history import History
from serfit.watch.learning import of_learning


def diagnose(history: History) -> tuple[Finding, ...]:
    """Everything there is to say about one run as it stands; nothing about a healthy one."""
    return (*of_learning(history), *slow_epoch(history))
