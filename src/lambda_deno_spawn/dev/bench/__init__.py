"""The cost of an event in each way to serve it, measured side by side."""
