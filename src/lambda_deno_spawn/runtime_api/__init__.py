"""Clients of the Lambda Runtime API and of the Extensions API."""
