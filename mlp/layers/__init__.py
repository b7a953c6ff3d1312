"""Layers: what a layer is, and one file for each."""
