"""Speech encoders behind one face, `serfit.nn.encoders.base.Encoder`: each family is a module and a line in `build`.

`folder`, `microsoft` and `source` find settings and weights by the name that the user wrote; nothing is built there.
"""
