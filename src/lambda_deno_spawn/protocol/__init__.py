"""The protocol between the supervisor and a worker. docs/protocol.md."""
