"""Fine-tune speech encoders for valence, arousal and dominance, with numbers one can trust.

Importing this package does nothing: no seeds, threads, handlers or warning filters, and no torch.
The story of one experiment is told in `serfit.experiment`; `docs/architecture.md` maps the rest.
"""

__version__ = "0.1.0"
