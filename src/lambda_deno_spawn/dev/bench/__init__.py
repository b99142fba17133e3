"""What events cost in each way to serve them, measured side by side."""
