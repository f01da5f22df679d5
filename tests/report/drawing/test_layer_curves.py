"""The picture of a probe: the same bytes for the same probe, words as text, whatever is missing."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from report.layers_made import made_probe
from serfit.report.drawing.layer_curves import layer_pictures
from serfit.report.layers import Probed
from serfit.scores.statistics.interval import Estimate


def words(probed: Probed) -> set[str]:
    root = ElementTree.fromstring(layer_pictures(probed)[".svg"].decode())
    return {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_both_files_are_the_same_for_the_same_probe() -> None:
    first, second = (layer_pictures(made_probe(["one", "two"])) for _ in range(2))
    assert first == second
    assert first[".png"].startswith(b"\x89PNG")


def test_the_picture_names_corpus_encoders_dimensions_and_what_is_no_layer() -> None:
    found = words(made_probe(["one", "two $x$"]))
    assert {"CCC-V", "CCC-A", "0", "1", "layer", "hand-made"} <= found
    assert {"sum of layers", "all layers", "chosen layer"} <= found
    assert "EMO-DB (proxy targets): ridge regression on frozen layers" in found
    assert {"one: mean", "one: mean + SD", "two $x$: mean + SD"} <= found


@pytest.mark.parametrize("depth", [1, 24, 48])
def test_deep_encoders_have_few_marks(depth: int) -> None:
    probed = made_probe(["deep"])
    (single, *_) = [line for line in probed.lines if line.layer == 0]
    more = tuple(replace(single, layer=layer, features=f"layer {layer}") for layer in range(2, depth + 1))
    found = words(replace(probed, lines=(*probed.lines, *more)))
    assert 2 <= len([one for one in found if one.isdigit()]) <= 10


def test_undefined_scores_leave_gaps() -> None:
    probed = made_probe(["one"])
    lines = [
        replace(line, scores={name: Estimate(None, None, one.scope) for name, one in line.scores.items()})
        for line in probed.lines
    ]
    assert "CCC-V" in words(replace(probed, lines=(lines[0], *probed.lines[1:3], *lines[3:])))
