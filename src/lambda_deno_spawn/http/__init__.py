"""HTTP/1.1 to one server: a client's side, without and with sockets."""
