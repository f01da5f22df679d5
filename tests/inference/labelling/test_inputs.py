"""What is named becomes a list: in order, once each, nothing lost without a word."""

from pathlib import Path

import pytest

from serfit.errors import UserError
from serfit.inference.labelling.inputs import Item, list_items, read_manifest


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "s/b.wav",
        "s/a.FLAC",
        "s/deep/c.mp3",
        "s/notes.txt",
        "s/.hidden.wav",
        "s/.git/d.wav",
        "s/e.m4a",
        "x.bin",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def files(*arguments: str) -> list[str]:
    return [item.file for item in list_items(arguments).items]


def test_folders_files_and_globs_in_their_order(tree: Path) -> None:
    assert files("s") == ["s/a.FLAC", "s/b.wav", "s/deep/c.mp3"]
    assert files("x.bin", "s") == ["x.bin", "s/a.FLAC", "s/b.wav", "s/deep/c.mp3"]
    assert files("s/**/*.*3") == ["s/deep/c.mp3"]
    assert files("s/*.wav", "s/*.m4a") == ["s/b.wav", "s/e.m4a"]
    assert files("?") == files("s")  # a glob may match a folder
    assert list_items(["s"]).notes == ("2 files in the folders left out by ending: .m4a, .txt",)


def test_folders_that_are_links_are_searched_once(tree: Path) -> None:
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere/l.wav").write_bytes(b"x")
    (tree / "s/link").symlink_to(tree / "elsewhere")
    (tree / "s/once_more").symlink_to(tree / "elsewhere")
    (tree / "s/loop").symlink_to(tree / "s")
    assert files("s") == ["s/a.FLAC", "s/b.wav", "s/deep/c.mp3", "s/link/l.wav"]


def test_a_file_named_twice_counts_once_and_that_is_said(tree: Path) -> None:
    found = list_items(["s/b.wav", "s/../s/b.wav", str(tree / "s/b.wav"), "s"])
    assert [item.file for item in found.items] == ["s/b.wav", "s/a.FLAC", "s/deep/c.mp3"]
    assert "3 files named twice" in found.notes[0]


def test_names_that_look_like_globs_are_files_where_they_exist(tree: Path) -> None:
    (tree / "a[1].wav").write_bytes(b"x")
    assert files("a[1].wav") == ["a[1].wav"]


def test_what_isnt_there_is_said(tree: Path) -> None:
    with pytest.raises(UserError, match=r"there is no nowhere\.wav"):
        list_items(["s", "nowhere.wav"])
    with pytest.raises(UserError, match=r"nothing matches \*\.opus"):
        list_items(["*.opus"])
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=r"no audio in empty; folders are searched for \.aif"):
        list_items(["empty"])


def test_a_model_among_the_recordings_is_refused(tree: Path) -> None:
    (tree / "run2").mkdir()
    (tree / "run2" / "best.safetensors").touch()
    for name in ("run2", "m.onnx"):
        (tree / "m.onnx").touch()
        with pytest.raises(UserError, match=f"{name} is a model and no recording.*--model {name}"):
            list_items(["s", name])


def test_a_manifest_keeps_its_rows(tree: Path) -> None:
    manifest = tree / "s" / "list.csv"
    manifest.write_text('﻿file, start ,end,id,speaker\nb.wav,,,one,x\nb.wav,0.5,2,two,x\n\n/abs/c.wav,1,,"a,b",y\n')
    items, notes = read_manifest(manifest)
    assert items == [
        Item("b.wav", tree / "s/b.wav", 0.0, None, "one"),
        Item("b.wav", tree / "s/b.wav", 0.5, 2.0, "two"),
        Item("/abs/c.wav", Path("/abs/c.wav"), 1.0, None, "a,b"),
    ]
    assert notes == [f"{manifest}: columns speaker aren't used"]
    assert items[1].name == "b.wav from 0.5 s to 2 s"
    assert list_items([str(manifest), "s/b.wav"]).items == (*items, Item("s/b.wav", Path("s/b.wav")))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "its columns are none"),
        ("path,start\na.wav,1\n", "its columns are path, start; one must be file"),
        ("file,file\na,b\n", "none may stand twice"),
        ("file\n", "has no rows"),
        ("file,start\na.wav\n", "row 2 has 1 cell and the header line has 2"),
        (
            "file,start,end\na.wav,2,1\n,,\nb.wav,x,\nc.wav,-1,\n",
            r"3 of 3 rows.*\n  row 2: start 2 s isn't before.*\n  row 4",
        ),
        ("file,start\na.wav,nan\n", 'column "start" is "nan"; it must be seconds'),
        ("file,id\n,x\n", "row 2: the file is empty"),
        ('file\n"a.wav\n', "isn't valid CSV"),
        (b"file\n\xff\xfe.wav\n", "isn't UTF-8"),
        (b"file\na\0b.wav\n", "row 2: the file has a zero byte"),
    ],
)
def test_a_manifest_that_cant_be_is_one_message(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence):
        read_manifest(path)


def test_an_identity_follows_the_file_and_the_stretch(tree: Path) -> None:
    item = Item("s/b.wav", tree / "s/b.wav")
    before = item.identity()
    assert Item("s/b.wav", tree / "s/b.wav", 0.5).identity() != before
    item.path.write_bytes(b"xy")
    assert item.identity() != before
    item.path.unlink()
    assert item.identity()[-1] is None
