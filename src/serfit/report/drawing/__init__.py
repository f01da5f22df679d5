"""Charts: SVG for pages, PNG for run directories."""
