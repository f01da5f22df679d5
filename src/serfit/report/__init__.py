"""Views of finished runs: comparison, curves, text. Everything is computed from structured records."""
