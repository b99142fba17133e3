"""Packages: the zip files of functions and of layers."""
