"""The client and the server of the TP0: handshake, operation code, size, payload; integers as C has them on x86.

Run as `tp0.py WHAT ARGUMENTS ..`; servers print their port first.
"""

import socket
import struct
import sys
import time

HOST = "127.0.0.1"
LIMIT_SECONDS = 100
HELLO = struct.pack("<i", 1)
TAKEN = struct.pack("<i", 0)
REFUSED = struct.pack("<i", -1)


def connect(port):
    client = socket.create_connection((HOST, int(port)), LIMIT_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def text(value):
    return value.encode() + b"\0"


def message(value):
    return struct.pack("<ii", 0, len(text(value))) + text(value)


def package(values):
    inner = b"".join(struct.pack("<i", len(text(value))) + text(value) for value in values)
    return struct.pack("<ii", 1, len(inner)) + inner


def client(port, has_hello):
    """One piece, then byte by byte, then all of it glued to the first words."""
    body = message("valor") + package(["hola", "mundo"]) + package([])
    hello = HELLO if int(has_hello) else b""
    for sizes in [len(body), 1, None]:
        server = connect(port)
        if sizes is None:
            server.sendall(hello + body)
        else:
            server.sendall(hello)
        if hello:
            assert server.recv(4, socket.MSG_WAITALL) == TAKEN
        for at in range(0, len(body) if sizes else 0, sizes or 1):
            server.sendall(body[at : at + sizes])
        server.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""


def server(has_hello):
    """Takes one client; says its bytes in hexadecimal, a run of 64 and more by its length and ends."""
    listener = socket.create_server((HOST, 0))
    listener.settimeout(LIMIT_SECONDS)
    print(listener.getsockname()[1], flush=True)
    peer, _ = listener.accept()
    if int(has_hello):
        said = peer.recv(4, socket.MSG_WAITALL)
        print(said.hex(), flush=True)
        peer.sendall(TAKEN if said == HELLO else REFUSED)
    while head := peer.recv(8, socket.MSG_WAITALL):
        op, size = struct.unpack("<ii", head)
        payload = peer.recv(size, socket.MSG_WAITALL) if size else b""
        assert len(payload) == size
        if size > 64:
            print(op, size, payload[:8].hex(), payload[-8:].hex(), flush=True)
        else:
            print((head + payload).hex(), flush=True)
    peer.close()


# What each violation does, as bytes after the right first words, or instead of them. True: the stream stays in step.
BAD_HELLOS = [
    struct.pack("<i", 2),
    struct.pack(">i", 1),
    message("no handshake"),
    b"\x01",
    b"\x01\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
]
BAD_MESSAGES = [
    (struct.pack("<ii", 77, 5) + b"hola\0", True),
    (struct.pack("<ii", 0, -1), False),
    (struct.pack("<ii", 0, 0x7FFFFFFF) + b"12345678", False),
    (struct.pack("<ii", 0, 4) + b"ABCD", True),
    (struct.pack("<iii", 1, 8, 1000) + b"abc\0", True),
    (struct.pack("<iii", 1, 8, -5) + b"abc\0", True),
    (struct.pack("<ii", 0, 100) + b"cut", False),
]


def violations(port):
    for said in BAD_HELLOS:
        peer = connect(port)
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(5, socket.MSG_WAITALL) == REFUSED, said
    for said, is_in_step in BAD_MESSAGES:
        peer = connect(port)
        peer.sendall(HELLO)
        assert peer.recv(4, socket.MSG_WAITALL) == TAKEN
        peer.sendall(said + (message("in step") if is_in_step else b""))
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b"", said


def silent(port, count):
    """Says nothing, and is told off when its time is over; others are served meanwhile."""
    peers = [connect(port) for _ in range(int(count))]
    half = connect(port)
    half.sendall(HELLO[:2])
    client(port, 1)
    for peer in [*peers, half]:
        assert peer.recv(5, socket.MSG_WAITALL) == REFUSED


def deaf(port):
    """A refused client that does not listen, as the original: it sends all of its messages."""
    peer = connect(port)
    peer.sendall(struct.pack("<i", 2))
    try:
        for _ in range(100):
            peer.sendall(package(["hola"] * 100))
            time.sleep(0.001)
    except (BrokenPipeError, ConnectionResetError):
        pass


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
