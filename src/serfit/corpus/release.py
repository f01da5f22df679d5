"""What the full IEMOCAP release holds, and in what a copy of it differs."""

from collections import Counter
from collections.abc import Iterable, Sequence

from serfit.corpus.utterance import Utterance
from serfit.errors import UserError, counted, listed
from serfit.labels import DIMENSIONS, LabelScale

SCALE = LabelScale(1.0, 5.0)
"""Raters used five-point scales for valence, activation (our arousal) and dominance."""

OFFICIAL_COUNTS = {"Ses01": 1819, "Ses02": 1811, "Ses03": 2136, "Ses04": 2103, "Ses05": 2170}
"""Rated utterances of the full release per session, 10,039 in all."""

OFF_SCALE = 0.5
"""How far off the scale the ratings of the release lie at most: valence 5.5, dominance 0.5."""


def official_dialogues() -> frozenset[str]:
    """The 151 dialogues of the full release.

    Each session has seven scripted and eight improvised dialogues per motion-captured speaker, but session 1 has no
    impro08, and three dialogues were recorded in two pieces.
    """
    scripts = ["script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2"]
    regular = {
        f"{session}{letter}_{name}"
        for session in OFFICIAL_COUNTS
        for letter in "FM"
        for name in [*scripts, *(f"impro0{number}" for number in range(1, 9))]
    }
    pieces = {f"Ses03M_impro{number}{piece}" for number in ("05", "08") for piece in "ab"} | {"Ses05M_script01_1b"}
    absent = {"Ses01F_impro08", "Ses01M_impro08", "Ses03M_impro05", "Ses03M_impro08"}
    return frozenset(regular - absent | pieces)


def count_notes(utterances: Sequence[Utterance]) -> list[str]:
    """Describe the differences from the full release, if any."""
    counts = Counter(utterance.session for utterance in utterances)
    dialogues = {utterance.dialogue or "" for utterance in utterances}
    official = official_dialogues()
    if dict(counts) == OFFICIAL_COUNTS and dialogues == official:
        return []
    sessions = [*OFFICIAL_COUNTS, *sorted(str(name) for name in counts if name not in OFFICIAL_COUNTS)]
    differing = [
        f"{name} {counts[name]} of {OFFICIAL_COUNTS.get(name, 0)}"
        for name in sessions
        if counts[name] != OFFICIAL_COUNTS.get(name, 0)
    ]
    parts = [
        f"not the full IEMOCAP release: {counted(len(utterances), 'utterance')} in "
        f"{counted(len(dialogues), 'dialogue')} instead of {sum(OFFICIAL_COUNTS.values()):,} in {len(official)}",
        ", ".join(differing),
        _named("without", official - dialogues),
        _named("with the unknown", dialogues - official),
    ]
    return ["; ".join(part for part in parts if part)]


def gap_notes(utterances: Sequence[Utterance]) -> list[str]:
    """A warning where a session is missing before others, for then fold k doesn't test on session k."""
    present = sorted({str(utterance.session) for utterance in utterances})
    shifted = [f"{fold} tests on {name}" for fold, name in enumerate(present, start=1) if name != f"Ses{fold:02d}"]
    if not shifted:
        return []
    missing = sorted(set(OFFICIAL_COUNTS) - set(present))
    return [
        f"warning: without {listed(missing, most=5)}, folds that leave a session out aren't numbered like the "
        f"sessions: fold {', fold '.join(shifted)}"
    ]


def _named(what: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{what} {listed(ordered)}" if ordered else ""


def scale_notes(utterances: Sequence[Utterance]) -> list[str]:
    """Report the number of ratings off the scale; those near it are kept, like those of the release.

    Raises:
        UserError: one lies further off than any of the release.
    """
    absurd = [
        f"{utterance.id} {name} {rating:g}"
        for utterance in utterances
        for name, rating in utterance.ratings.items()
        if not SCALE.minimum - OFF_SCALE <= rating <= SCALE.maximum + OFF_SCALE
    ]
    if absurd:
        raise UserError(
            f"{counted(len(absurd), 'rating')} far off the scale of {SCALE.minimum:g} to {SCALE.maximum:g}: "
            f"{listed(absurd)}; take the files in dialog/EmoEvaluation from the release again"
        )
    off = Counter(
        (DIMENSIONS.index(name), rating)
        for utterance in utterances
        for name, rating in utterance.ratings.items()
        if not SCALE.contains(rating)
    )
    if not off:
        return []
    values = [f"{DIMENSIONS[index]} {rating:g} x {count}" for (index, rating), count in sorted(off.items())]
    return [
        f"{counted(off.total(), 'rating')} off the scale of {SCALE.minimum:g} to {SCALE.maximum:g}, kept unchanged: "
        f"{listed(values, most=10)}"
    ]
