"""An echo server as the selectors page of the Python manual has it: python3 echo_selectors.py ADDRESS PORT."""

import selectors
import socket
import sys


def main() -> None:
    poll = selectors.DefaultSelector()
    listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
    listener.setblocking(False)
    poll.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            if key.fileobj is listener:
                peer, _ = listener.accept()
                peer.setblocking(False)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(peer, selectors.EVENT_READ)
                continue
            peer = key.fileobj
            try:
                data = peer.recv(65536)
                peer.send(data)
            except OSError:
                data = b""
            if not data:
                poll.unregister(peer)
                peer.close()


main()
