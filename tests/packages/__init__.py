"""Packages from npm, built in every form and run where the project is not."""
