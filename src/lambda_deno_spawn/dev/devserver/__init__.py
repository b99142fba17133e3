"""Lambda on this machine as a server: functions behind one port, and their journal."""
