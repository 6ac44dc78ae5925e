"""HTTP on 127.0.0.1 for the loopback exchange, down to connections that break in mid-body."""

import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ExchangeHTTPServer(ThreadingHTTPServer):
    """Hands each GET to ``exchange.reply(path, headers)`` on a thread of its connection.

    Those threads are joined when it closes.
    """

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, address, exchange):
        self.exchange = exchange
        self._connections = set()
        super().__init__(address, _Handler)

    def process_request(self, request, client_address):
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self):
        """Hang up on clients that keep their connections, so that the threads end."""
        for connection in tuple(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        super().server_close()

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        exchange = self.server.exchange
        reply = exchange.reply(self.path, self.headers)
        if reply.stall:
            exchange.wait(reply.stall)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()
        if reply.reset_after is None:
            self.wfile.write(reply.body)
            self.wfile.flush()
        else:
            self.wfile.write(reply.body[: reply.reset_after])
            self._reset()

    def _reset(self):
        self.wfile.flush()
        # A linger of zero seconds makes close() send a reset instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_):
        pass
