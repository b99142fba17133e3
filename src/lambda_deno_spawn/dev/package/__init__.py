"""Packages: the zip files of functions and layers."""
