"""Lines one way over TCP and UDP, as beginners' clients and servers have them: no frames, one client at a time.

Run as `chat.py WHAT ARGUMENTS ..`; servers print their port first.
"""

import socket
import sys

HOST = "127.0.0.1"
LIMIT_SECONDS = 100


def tcp_client(port, *lines):
    """Each line without its newline; nothing comes back."""
    client = socket.create_connection((HOST, int(port)), LIMIT_SECONDS)
    for line in lines:
        client.send(line.encode())
    client.close()


def tcp_reader(port, said, wanted):
    """A client that also reads: the operator of the server answers."""
    client = socket.create_connection((HOST, int(port)), LIMIT_SECONDS)
    client.sendall(said.encode() + b"\n")
    answer = b""
    while len(answer) < len(wanted):
        part = client.recv(1024)
        assert part, answer
        answer += part
    assert answer == wanted.encode(), answer


def tcp_server(count):
    server = socket.socket()
    server.bind((HOST, 0))
    server.listen(1)
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    for _ in range(int(count)):
        client, _ = server.accept()
        print("Conectado", flush=True)
        got = b""
        while part := client.recv(1024):
            got += part
        print(got, flush=True)
        print("Finalizando", flush=True)
        client.close()


def udp_client(port, *lines):
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for line in lines:
        client.sendto(line.encode(), (HOST, int(port)))


def udp_server(count):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((HOST, 0))
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    for _ in range(int(count)):
        print(server.recvfrom(1024)[0], flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
