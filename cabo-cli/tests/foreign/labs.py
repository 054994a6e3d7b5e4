"""Clients and servers as the labs on sockets have them: datagrams, echoes, records, headers with a payload.

Run as `labs.py WHAT ARGUMENTS ..`; servers print their port first. The reads are as short and as trusting as there.
"""

import selectors
import socket
import struct
import sys
import threading

HOST = "127.0.0.1"
LIMIT_SECONDS = 100


def connect(port):
    return socket.create_connection((HOST, int(port)), LIMIT_SECONDS)


def exactly(client, size):
    got = b""
    while len(got) < size:
        part = client.recv(min(size - len(got), 1 << 20))
        assert part, f"the end after {len(got)} of {size} bytes"
        got += part
    return got


def serve():
    server = socket.create_server((HOST, 0))
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    return server


# Exercise 1


def udp_send(port):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for text in ["olá".encode(), b"\xff\xfe", b"", b"x" * 65507]:
        client.sendto(text, (HOST, int(port)))
    print(client.getsockname()[1])


def udp_receive(count):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((HOST, 0))
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    for _ in range(int(count)):
        text, (ip, _) = server.recvfrom(2048)
        print(f"Message from {ip} -> {text.decode()}", flush=True)


# Exercises 2 and 3


def echo_clients(port, count):
    clients = [connect(port) for _ in range(int(count))]  # all are there before anybody speaks
    for number, client in enumerate(clients):
        client.sendall(f"olá {number}".encode())
    for number, client in reversed(list(enumerate(clients))):
        wanted = f"ECHO: olá {number}".encode()
        assert exactly(client, len(wanted)) == wanted, number


def echo_threads():
    def talk(client):
        while text := client.recv(1024).decode():
            client.sendall(("ECHO: " + text).encode())
        client.close()

    client, _ = serve().accept()
    thread = threading.Thread(target=talk, args=(client,))
    thread.start()
    thread.join()


def echo_selectors():
    selector = selectors.DefaultSelector()
    server = serve()
    server.setblocking(False)
    selector.register(server, selectors.EVENT_READ)
    is_done = False
    while not is_done:
        for key, _ in selector.select(LIMIT_SECONDS):
            if key.fileobj is server:
                client, _ = server.accept()
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
            elif text := key.fileobj.recv(1024):
                key.fileobj.sendall(b"ECHO: " + text)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                is_done = True


def strangers(port):
    """Silent, reset, half-closed, not UTF-8: and a good client among them."""
    silent = connect(port)
    reset = connect(port)
    reset.sendall(b"hola")
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reset.close()
    half = connect(port)
    half.sendall(b"half")
    half.shutdown(socket.SHUT_WR)
    assert exactly(half, 10) == b"ECHO: half"
    assert half.recv(1) == b""
    binary = connect(port)
    binary.sendall(b"\xff\xfe\x00")
    assert exactly(binary, 9) == b"ECHO: \xff\xfe\x00"
    echo_clients(port, 3)
    silent.close()


# Exercise 4

RECORD = struct.Struct("!BLL20s")


def record(order, text):
    return RECORD.pack(1, order, len(text), text.encode().ljust(20, b"-"))


def records(port):
    client = connect(port)
    assert RECORD.size == 29
    one = record(1, "olá")
    for byte in one:
        client.sendall(bytes([byte]))
    assert exactly(client, 29) == one
    glued = b"".join(record(order, "x" * order) for order in range(2, 12))
    client.sendall(glued)
    assert exactly(client, len(glued)) == glued


def record_server(count):
    client, _ = serve().accept()
    for _ in range(int(count)):
        got = exactly(client, 29)
        print(*RECORD.unpack(got), flush=True)
        client.sendall(got)
    client.close()


# Exercise 5


def headers(port, is_size_first):
    client = connect(port)
    for order, size in enumerate([0, 1, 20, 70_000, 16 << 20], 1):
        payload = b"p" * size
        fields = (size, order) if int(is_size_first) else (order, size)
        header = struct.pack("!BLL", 1, *fields)
        if order % 2:
            parts = [header + payload]
        else:
            parts = [header, payload]

        def send():
            for part in parts:
                client.sendall(part)

        sending = threading.Thread(target=send)
        sending.start()
        assert exactly(client, 9 + size) == header + payload, order
        sending.join()


def header_server():
    client, _ = serve().accept()
    while header := client.recv(9):
        version, size, order = struct.unpack("!BLL", header)
        payload = client.recv(size) if size else b""
        print(version, size, order, payload, flush=True)
        client.sendall(header + payload)
    client.close()


def huge(port):
    """4 GiB announced, and a message that is cut: both clients are left, a third does not notice."""
    good = connect(port)
    bad = connect(port)
    bad.sendall(struct.pack("!BLL", 1, 0xFFFFFFFF, 1) + b"some")
    assert bad.recv(1) == b""
    cut = connect(port)
    cut.sendall(struct.pack("!BLL", 1, 100, 1) + b"some")
    cut.shutdown(socket.SHUT_WR)
    assert cut.recv(1) == b""
    message = struct.pack("!BLL", 1, 4, 1) + b"hola"
    both = connect(port)
    both.sendall(message + struct.pack("!BLL", 1, 0xFFFFFFFF, 2))
    assert exactly(both, 13) == message, "what was whole is answered"
    assert both.recv(1) == b""
    good.sendall(message)
    assert exactly(good, 13) == message


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
