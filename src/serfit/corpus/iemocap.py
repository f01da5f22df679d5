"""The IEMOCAP release as it is distributed: five sessions, ten speakers, 10,039 rated utterances.

Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language Resources and Evaluation 42
(2008). Read are dialog/EmoEvaluation/*.txt (ratings), dialog/transcriptions/*.txt (words) and the names of the files in
sentences/wav; no audio is opened.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

from serfit.corpus.release import SCALE, count_notes, gap_notes, scale_notes
from serfit.corpus.utterance import Corpus, Release, Style, Utterance
from serfit.errors import UserError, counted, listed
from serfit.labels import DIMENSIONS, Dimension

EXPECTED = (
    "it must be the folder of the IEMOCAP release that holds Session1 to Session5; "
    "set data.root, or the environment variable IEMOCAP_ROOT, which the files in configs/ read"
)

_NUMBER = r"(-?\d+(?:\.\d*)?)"
_HEADER = re.compile(
    rf"\[\s*{_NUMBER}\s*-\s*{_NUMBER}\s*\]\s+(\S+)\s+(\S+)\s+\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]"
)
_NAME = re.compile(r"((Ses\d\d)[FM]_((impro|script)\d\d)\w*)_([FM])\d{3}")
_EXTERNAL = re.compile(r"A-E\w*:([^(]*)")
_RATER_LINE = re.compile(r"[AC]-\w+:")
_TRANSCRIPT = re.compile(r"(\S+)\s*\[[^\]]*\]\s*:?(.*)")
_RATED: Mapping[Dimension, re.Pattern[str]] = {
    name: re.compile(rf"\b{word}\s+(\d+(?:\.\d+)?)")
    for name, word in zip(DIMENSIONS, ("val", "act", "dom"), strict=True)
}
_STYLES: Mapping[str, Style] = {"impro": "improvised", "script": "scripted"}
_GENDERS = {"F": "female", "M": "male"}


def read_iemocap(root: Path) -> Corpus:
    """Read the release.

    Ratings are the means of the external raters as the release states them, on 1 to 5; a few lie outside (valence 5.5,
    dominance 0.5), are kept as they are and counted in a note. Utterances without a majority emotion ("xxx") are in.
    Speaker and gender come from the letter before the turn number (`Ses01F_impro01_M003` is spoken by `Ses01_M`); turns
    are numbered in order of time within the dialogue. The wav files are already cut, so start is 0 and end None;
    duration is that of the header.

    Args:
        root: the folder that holds Session1 to Session5, or one at most two levels above it.

    Returns:
        The corpus, ordered by session, dialogue and time. Notes tell what differs from the official counts.

    Raises:
        UserError: no release there, a malformed label, an id that occurs twice, or audio that is missing.
    """
    sessions = _session_folders(find_release(root))
    labels = [label for folder in sessions for label in _read_labels(folder)]
    _check_unique(labels)
    if not labels:
        raise UserError(f"the IEMOCAP release at {sessions[0].parent} lists no utterance; unpack the release again")
    wavs = {folder: _wav_names(folder) for folder in sessions}
    _check_audio(labels, wavs)
    transcripts = {name: text for folder in sessions for name, text in _read_transcripts(folder).items()}
    dialogues = groupby(sorted(labels, key=lambda label: label.place), key=lambda label: label.utterance.dialogue)
    utterances = tuple(
        replace(label.utterance, turn=turn, transcript=transcripts.get(label.utterance.id))
        for _, dialogue in dialogues
        for turn, label in enumerate(dialogue)
    )
    notes = (
        *count_notes(utterances),
        *gap_notes(utterances),
        *scale_notes(utterances),
        *_unlabelled_notes(labels, wavs),
    )
    return Corpus("iemocap", utterances, dict.fromkeys(DIMENSIONS, SCALE), notes)


def find_release(root: Path) -> Path:
    """The folder that holds the sessions: root itself, or the only such folder at most two levels below.

    Raises:
        UserError: there is none, or more than one.
    """
    if not root.is_dir():
        raise UserError(f"data.root is {root}, which {'is a file' if root.exists() else 'does not exist'}; {EXPECTED}")
    if _session_folders(root):
        return root
    if re.fullmatch(r"Session[1-5]", root.resolve().name):
        raise UserError(f"data.root is {root}, which is one session; use the folder above it, {root.resolve().parent}")
    near = [child for child in _folders(root) if _session_folders(child)]
    far = [below for child in _folders(root) if child not in near for below in _folders(child)]
    found = near + [folder for folder in far if _session_folders(folder)]
    if len(found) == 1:
        return found[0]
    if found:
        names = listed([str(folder) for folder in found])
        raise UserError(f"data.root is {root}, which holds several releases ({names}); set data.root to one of them")
    names_here = [name for name in _names(root) if not name.startswith(".")]
    content = f"holds {listed(names_here)} but no Session1" if names_here else "is empty"
    raise UserError(f"data.root is {root}, which {content}; {EXPECTED}")


@dataclass(frozen=True, slots=True)
class _Label:
    """One block of an EmoEvaluation file, and where it stands; the utterance without turn and transcript."""

    utterance: Utterance
    start: float
    end: float
    folder: Path
    file: Path
    line: int

    @property
    def place(self) -> tuple[str, str, float, float, str]:
        """Order in the corpus."""
        return str(self.utterance.session), str(self.utterance.dialogue), self.start, self.end, self.utterance.id

    @property
    def wav(self) -> str:
        """The audio file, as a path inside sentences/wav."""
        return f"{self.utterance.dialogue}/{self.utterance.id}.wav"


def _read_labels(session: Path) -> list[_Label]:
    """All labels of a session folder."""
    folder = session / "dialog" / "EmoEvaluation"
    if not folder.is_dir():
        raise UserError(
            f"{session} has no folder dialog/EmoEvaluation with the ratings; unpack the whole session, or remove it"
        )
    return [label for path in _texts(folder) for label in _read_evaluation(session, path)]


def _read_evaluation(session: Path, path: Path) -> list[_Label]:
    """The labels of one dialogue: header lines `[start - end] name emotion [V, A, D]`, each with its raters' lines."""
    lines = _lines(path)
    heads = [place for place, line in enumerate(lines) if _announces(line)]
    blocks = [(place, lines[place:following]) for place, following in pairwise([*heads, len(lines)])]
    return [_label(session, path, place + 1, block) for place, block in blocks]


def _announces(line: str) -> bool:
    """Whether a line should be a header: it begins with a bracket, or names a turn outside of a rater's remarks."""
    return line.startswith("[") or (not _RATER_LINE.match(line) and _NAME.search(line) is not None)


def _label(session: Path, path: Path, line: int, block: Sequence[str]) -> _Label:
    head = _HEADER.fullmatch(block[0])
    name = _NAME.fullmatch(head[3]) if head else None
    if head is None or name is None:
        wanted = "[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]"
        raise UserError(
            f'{path} line {line} is "{block[0]}", which is no label of the form {wanted}; '
            "take the file from the release again"
        )
    start, end = float(head[1]), float(head[2])
    if not start < end:
        raise UserError(
            f"{path} line {line}: {head[3]} ends at {end:g} s but starts at {start:g} s; "
            "take the file from the release again"
        )
    rated = _single_ratings(block)
    utterance = Utterance(
        id=name[0],
        path=_wav_folder(session) / name[1] / f"{name[0]}.wav",
        ratings=dict(zip(DIMENSIONS, (float(head[5]), float(head[6]), float(head[7])), strict=True)),
        duration=round(end - start, 4),
        speaker=f"{name[2]}_{name[5]}",
        session=name[2],
        dialogue=name[1],
        scenario=name[3],
        style=_STYLES[name[4]],
        gender=_GENDERS[name[5]],
        emotion=head[4],
        raters=len(rated["valence"]),
        single_ratings=rated,
    )
    return _Label(utterance, start, end, session, path, line)


def _single_ratings(block: Iterable[str]) -> dict[Dimension, tuple[float, ...]]:
    """Return the external raters' ratings; values left out are missing, remarks in brackets are ignored."""
    rated = [match[1] for match in map(_EXTERNAL.match, block) if match]
    return {
        name: tuple(float(match[1]) for match in map(pattern.search, rated) if match)
        for name, pattern in _RATED.items()
    }


def _check_unique(labels: Iterable[_Label]) -> None:
    first: dict[str, _Label] = {}
    for label in labels:
        other = first.setdefault(label.utterance.id, label)
        if other is not label:
            raise UserError(
                f"{label.utterance.id} is labelled twice, in {other.file} line {other.line} and in {label.file} line "
                f"{label.line}; ids must be unique, so remove one of them"
            )


def _wav_folder(session: Path) -> Path:
    return session / "sentences" / "wav"


def _wav_names(session: Path) -> frozenset[str]:
    """The wav files of a session as `dialogue/name.wav`: one listing per dialogue, no look at the files."""
    folder = _wav_folder(session)
    if not folder.is_dir():
        raise UserError(
            f"{session} has no folder sentences/wav with the audio; unpack the whole session, or remove {session.name}"
        )
    return frozenset(
        f"{dialogue.name}/{name}"
        for dialogue in _folders(folder)
        for name in _names(dialogue)
        if name.endswith(".wav") and not name.startswith(".")
    )


def _check_audio(labels: Iterable[_Label], wavs: Mapping[Path, frozenset[str]]) -> None:
    missing = [label for label in labels if label.wav not in wavs[label.folder]]
    if missing:
        raise UserError(
            f"{counted(len(missing), 'utterance')} of the IEMOCAP release with ratings but no audio: "
            f"{listed([label.utterance.id for label in missing])} (the first was looked for at "
            f"{missing[0].utterance.path}); every rated utterance needs its wav file, so unpack the release again"
        )


def _read_transcripts(session: Path) -> dict[str, str]:
    """Words by utterance; the files also hold turns without label or audio (`_FXX0`), which nobody asks for."""
    folder = session / "dialog" / "transcriptions"
    if not folder.is_dir():
        return {}
    matches = (_TRANSCRIPT.fullmatch(line) for path in _texts(folder) for line in _lines(path))
    return {match[1]: match[2].strip() for match in matches if match}


def _unlabelled_notes(labels: Sequence[_Label], wavs: Mapping[Path, frozenset[str]]) -> list[str]:
    """Report the number of audio files without a rating; they are left out."""
    labelled = {(label.folder, label.wav) for label in labels}
    spare = sorted(wav for folder, names in wavs.items() for wav in names if (folder, wav) not in labelled)
    return [f"{counted(len(spare), 'wav file')} without a rating, left out: {listed(spare)}"] if spare else []


def _session_folders(folder: Path) -> list[Path]:
    return [child for child in _folders(folder) if re.fullmatch(r"Session[1-5]", child.name)]


def _folders(folder: Path) -> list[Path]:
    """Sub-folders in order of their names, hidden ones left out; none where listing isn't allowed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _names(folder: Path) -> list[str]:
    """Names in a folder, in order."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"can't list {folder}: {error.strerror}; give yourself permission to read it") from error


def _texts(folder: Path) -> list[Path]:
    """The text files of a folder, without those that other systems leave behind (`._Ses01F_impro01.txt`)."""
    return [folder / name for name in _names(folder) if name.endswith(".txt") and not name.startswith(".")]


def _lines(path: Path) -> list[str]:
    """Stripped lines of a latin-1 file; byte 0x85, a dotted ellipsis, ends a line for str.splitlines but not here."""
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}; check the file and its permissions") from error
    return [line.strip() for line in text.split("\n")]


RELEASE = Release(read_iemocap, SCALE, "en")
