"""The published result that a run is compared with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from serfit.labels import DIMENSIONS, Dimension, letter
from serfit.scores.metrics import Scores

Measure = Dimension | Literal["average"]
"""What a column of CCC values is about: a dimension, or the mean over the predicted dimensions."""


def measure(scores: Scores, name: Measure) -> float | None:
    """CCC of a dimension, or the mean over all scored dimensions; None where undefined."""
    return scores.average if name == "average" else scores.ccc(name)


@dataclass(frozen=True, slots=True)
class Reference:
    """A result measured elsewhere, once and for all.

    Attributes:
        system: who and what.
        protocol: on what it was measured.
        corpus: name of the corpus it was measured on.
        utterances: number of rated utterances in that corpus.
        ccc: mean test CCC per dimension.
        average: mean of the dimensions' CCC, as stated by the source.
    """

    system: str
    protocol: str
    corpus: str
    utterances: int
    ccc: Mapping[Dimension, float]
    average: float

    def value(self, name: Measure, dimensions: Collection[Dimension]) -> float | None:
        """Its CCC beside predictions of some dimensions; the average only where it is over exactly these."""
        if name == "average":
            return self.average if set(dimensions) == set(self.ccc) else None
        return self.ccc.get(name)


FROZEN = Reference(
    system="reference project, frozen WavLM-Large + eGeMAPS + speaker",
    protocol="IEMOCAP, 5 folds, validation = next session",
    corpus="iemocap",
    utterances=10_039,
    ccc={"valence": 0.5896, "arousal": 0.6867},
    average=0.6381,
)
"""What fine-tuning has to beat: another project's result with a frozen encoder."""

GOAL = 0.62
"""CCC of valence hoped for from unfreezing the encoder; the expected range ends at `GOAL_END`."""

GOAL_END = 0.68
"""Upper end of the range hoped for."""

TOLERANCE = 0.01
"""Largest relative difference in corpus size at which a run may still be held against a reference."""


def obstacle(reference: Reference, corpus: str, utterances: int | None) -> str | None:
    """Why results on a corpus can't be held against a reference, as a clause; None where they can.

    Args:
        reference: the result to compare with.
        corpus: name of the corpus.
        utterances: number of its utterances in all parts together; None where unknown.
    """
    if corpus != reference.corpus:
        return f"the published result was measured on {reference.corpus}, not on {corpus}"
    if utterances is not None and abs(utterances - reference.utterances) > TOLERANCE * reference.utterances:
        return f"the published result was measured on {reference.utterances:,} utterances, not on {utterances:,}"
    return None


def difference(reference: Reference, ccc: Mapping[Dimension, float | None]) -> dict[Measure, float | None]:
    """CCC minus reference, per dimension and for "average"; None where either is undefined.

    The average is only compared when exactly the reference's dimensions were predicted.

    >>> difference(FROZEN, {"valence": 0.6, "dominance": 0.5})["average"] is None
    True
    """
    differences: dict[Measure, float | None] = {}
    for name in DIMENSIONS:
        value, other = ccc.get(name), reference.ccc.get(name)
        differences[name] = None if value is None or other is None else value - other
    defined = [value for value in ccc.values() if value is not None]
    same = set(ccc) == set(reference.ccc) and len(defined) == len(ccc)
    differences["average"] = sum(defined) / len(defined) - reference.average if same else None
    return differences


def verdict(scores: Scores, *, corpus: str = FROZEN.corpus, utterances: int | None = None) -> str:
    """Compare the test scores of one IEMOCAP run with the published result.

    What to do next is said by `serfit.report.diagnosis.diagnose.next_step`.

    Args:
        scores: test scores of one run.
        corpus: name of the run's corpus; on another corpus there is nothing to compare, and the text says so.
        utterances: number of utterances of the corpus, if known; on a much smaller one there is no goal.

    Returns:
        Several lines of text without a final line end.
    """
    reason = obstacle(FROZEN, corpus, utterances)
    if reason is None:
        return "\n".join([_CAUTION, "", _table(scores), "", _goal_line(scores.ccc("valence"))])
    if corpus != FROZEN.corpus:
        return f"no verdict: {reason}"
    return f"not comparable: {reason}; the difference means nothing before the whole corpus is used\n\n{_table(scores)}"


_CAUTION = (
    "caution: one fold's CCC is uncertain by 0.03 to 0.05; the published result is another project's mean of five "
    "folds,\n         measured with other code (frozen WavLM-Large + eGeMAPS + speaker)"
)


def _table(scores: Scores) -> str:
    differences = difference(FROZEN, {name: scores.ccc(name) for name in scores.dimensions})
    rows = [(f"CCC-{letter(name)}", scores.ccc(name), FROZEN.ccc[name], differences[name]) for name in FROZEN.ccc]
    known = [scores.ccc(name) for name in FROZEN.ccc]
    mean = None if None in known else sum(value for value in known if value is not None) / len(known)
    title = "CCC-Avg" if set(scores.dimensions) == set(FROZEN.ccc) else "Avg V,A"
    rows.append((title, mean, FROZEN.average, None if mean is None else mean - FROZEN.average))
    lines = [f"{'':8}{'this run':>10}{'published':>11}{'difference':>12}"]
    for name, value, other, change in rows:
        lines.append(f"{name:8}{_number(value, '.4f'):>10}{other:>11.4f}{_number(change, '+.4f'):>12}")
    return "\n".join(lines)


def _goal_line(valence: float | None) -> str:
    wanted = f"goal CCC-V >= {GOAL:.2f} (hoped for: {GOAL:.2f} to {GOAL_END:.2f})"
    if valence is None:
        return f"{wanted}: not reached, CCC-V is n/a"
    if valence >= GOAL:
        return f"{wanted}: reached"
    return f"{wanted}: not reached, {GOAL - valence:.4f} short"


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


EXPECTED = (((1, 5), (0.45, 0.55)), ((6, 10), (0.55, 0.60)), ((11, 20), (0.60, 0.65)))
"""Range of the best validation CCC of valence expected on IEMOCAP, by epochs from and to: what was planned for the
recipe of configs/finetune.yaml, not measured; docs/watching.md says so."""
