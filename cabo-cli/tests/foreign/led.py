"""A button and a lamp over sockets, and the stage for datagrams to groups.

Run as `led.py WHAT ARGUMENTS ..`; servers print their port first.
"""

import json
import os
import socket
import subprocess
import sys

HOST = "127.0.0.1"
LIMIT_SECONDS = 100


def connect(port):
    client = socket.create_connection((HOST, int(port)), LIMIT_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def presses(port):
    """Every end of a command, split and glued; connections that say nothing."""
    for command in [b"LED OFF\0", b"LED ON\n", b"LED OFF\r\n", b"LED ON"]:
        button = connect(port)
        button.sendall(command)
        button.close()
        connect(port).close()
    button = connect(port)
    for byte in b"LED OFF\0LED ON\nLED OFF":
        button.sendall(bytes([byte]))
    button.close()
    button = connect(port)
    button.sendall(b"LED ON\0LED OFF\0LED ON\r\nLED OFF\n")
    button.close()


def many(port, count):
    for number in range(int(count)):
        button = connect(port)
        button.sendall(b"LED ON\0" if number % 2 else b"LED OFF\0")
        button.close()


def strangers(port):
    """Idle, garbage, too much of it: and a press among them."""
    idle = connect(port)
    garbage = connect(port)
    garbage.sendall(bytes(range(128, 256)) + b"\n")
    flood = connect(port)
    try:
        for _ in range(64):
            flood.sendall(b"x" * 65536)
    except (BrokenPipeError, ConnectionResetError):
        pass
    press = connect(port)
    press.sendall(b"LED ON\0")
    press.close()
    garbage.close()
    idle.close()


def lamp_tcp(count):
    """One read for each connection, as the lamp does."""
    server = socket.create_server((HOST, 0), backlog=1)
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    for _ in range(int(count)):
        button, _ = server.accept()
        print(button.recv(1024), flush=True)
        button.close()


def lamp_udp(count):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((HOST, 0))
    server.settimeout(LIMIT_SECONDS)
    print(server.getsockname()[1], flush=True)
    for _ in range(int(count)):
        print(server.recv(1024), flush=True)


# In a namespace of its own, with an interface eth0 beside lo: `cabo lab -- python3 led.py groups CABO`


def groups(cabo):
    on_loopback(cabo)
    on_a_cable(cabo)
    broadcast(cabo)


def listen(cabo, url):
    args = [cabo, "listen", url, "--as", "led", "--json", "--open"]
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert json.loads(process.stdout.readline())["event"] == "listening"
    return process


def hears(process, wanted):
    while True:
        event = json.loads(process.stdout.readline())
        if event["event"] == "message":
            assert event["fields"]["payload"] == wanted, event
            return


def send(cabo, url, text):
    subprocess.run([cabo, "send", url, "--as", "led", text], check=True)


def end(*processes):
    for process in processes:
        process.terminate()
        assert process.wait(LIMIT_SECONDS) == 0


def join(interface):
    """The lamp's own socket, at the group."""
    lamp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lamp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    lamp.bind(("", 1234))
    index = socket.if_nametoindex(interface)
    member = socket.inet_aton("239.192.1.1") + socket.inet_aton("0.0.0.0")
    member += index.to_bytes(4, sys.byteorder)
    lamp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    lamp.settimeout(LIMIT_SECONDS)
    return lamp


def button(interface, command):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    index = socket.if_nametoindex(interface).to_bytes(4, sys.byteorder)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    sender.sendto(command, ("239.192.1.1", 1234))


def on_loopback(cabo):
    """Two of ours and one of theirs hear the same command, once each."""
    url = "udp://239.192.1.1:1234?if=lo"
    ours = [listen(cabo, url), listen(cabo, url)]
    theirs = join("lo")
    for number, command in enumerate(["LED OFF", "LED ON"]):
        if number:
            button("lo", command.encode())
        else:
            send(cabo, url, command)
        for process in ours:
            hears(process, command)
        assert theirs.recv(1024) == command.encode()
    end(*ours)


def on_a_cable(cabo):
    """The button is on another host; one lamp listens at that interface, another at loopback alone."""
    here = listen(cabo, "udp://239.192.1.1:1234?if=eth0")
    deaf = listen(cabo, "udp://239.192.1.1:1234?if=lo")
    url = "udp://239.192.1.1:1234?if=eth0"
    args = [cabo, "lab", "exec", "2", "--", cabo, "send", url, "--as", "led", "LED ON"]
    subprocess.run(args, check=True)
    hears(here, "LED ON")
    button("lo", b"LED OFF")
    hears(deaf, "LED OFF")  # its first
    end(here, deaf)


def broadcast(cabo):
    """To the broadcast address of the cable, both ways."""
    here = listen(cabo, "udp://:1234")
    address = os.environ["CABO_LAB_HOST1"].rsplit(".", 1)[0] + ".255"
    args = [cabo, "lab", "exec", "2", "--", cabo, "send", f"udp://{address}:1234"]
    subprocess.run([*args, "--as", "led", "LED OFF"], check=True)
    hears(here, "LED OFF")
    end(here)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
