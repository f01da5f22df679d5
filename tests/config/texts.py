"""Small configurations that the tests of loading share."""

SMALL = "experiment: {name: a}\ndata: {root: r}\n"
TABLE = {"corpus": "csv", "table": {"path": "t.csv", "valence": "v", "arousal": ["a", "b"]}}
CSV = {
    "experiment": {"name": "b"},
    "data": {"root": "r", "scales": {"valence": [1, 5], "arousal": [-1, 1]}, **TABLE},
}
