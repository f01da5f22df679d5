"""Bundles, ONNX files and hub folders."""
