"""Runs one row of table.toml on one side: `run.py TABLE NAME foreign|cabo`, in namespaces of its own (mounts and network).
Without a row it prints all rows.

The row's script is the partner of the program, step by step; no step sleeps, each waits for what it is about, and all of
it has LIMIT_SECONDS. Prints one JSON object: what the program wrote to stdout (as hexadecimal), its exit code, and what
was not as the script wants it.
"""

import json
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

LIMIT_SECONDS = 60
POLL_SECONDS = 0.002
# What must not happen is looked for so long; a program that is slow passes, it never fails.
NEVER_SECONDS = 0.3
TCP_LISTEN, UDP_OPEN = "0A", "07"
IP_RECVTTL = 12  # linux/in.h
# Makes here.pem and here.key, which a row with `certified` has.
CERTIFY = """openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout here.key -out here.pem \\
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null"""
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"


class Wrong(Exception):
    """The row is not as its script wants it."""


def until(is_so, what):
    end = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise Wrong(f"waited in vain until {what}")
        time.sleep(POLL_SECONDS)


def is_open(protocol, port):
    """Whether somebody listens at this port of this namespace, or has it for datagrams."""
    state = UDP_OPEN if protocol == "udp" else TCP_LISTEN
    for family in ("", "6"):
        with open(f"/proc/net/{protocol}{family}", encoding="ascii") as table:
            for line in list(table)[1:]:
                _, local, _, its_state, *_ = line.split()
                if its_state == state and int(local.rsplit(":", 1)[1], 16) == port:
                    return True
    return False


def is_unix_open(name):
    with open("/proc/net/unix", encoding="ascii") as table:
        # The flag of a socket that listens.
        return any(line.split()[3] == "00010000" and line.split()[-1] == name for line in list(table)[1:])


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def data(text):
    """A text of the table as bytes: each letter is one."""
    return text.encode("latin-1")


class Row:
    """A program and its partner."""

    def __init__(self, row, side):
        self.row, self.side = row, side
        self.child, self.reader, self.out = None, None, bytearray()
        self.listener, self.link, self.address = None, None, None

    def play(self):
        for verb, *args in self.row["script"]:
            try:
                getattr(self, verb.replace("-", "_"))(*args)
            except (OSError, AssertionError, AttributeError) as error:
                raise Wrong(f"{verb} {args}: {error!r}") from error
        if self.child is None:
            self.start()
        try:
            code = self.child.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Wrong("the program does not end") from error
        self.reader.join()
        return code

    # The program.

    def start(self):
        if self.row.get("pipe"):
            stdin = subprocess.PIPE
        elif "stdin" in self.row:
            with open("stdin", "wb") as file:
                file.write(data(self.row["stdin"]) * self.row.get("times", 1))
            stdin = open("stdin", "rb")
        else:
            stdin = subprocess.DEVNULL
        self.child = subprocess.Popen(
            ["sh", "-c", "exec " + self.row[self.side] if self.row.get("exec", True) else self.row[self.side]],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=open("stderr", "wb"),
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while piece := os.read(self.child.stdout.fileno(), 65536):
            self.out += piece

    def stdin(self, text):
        self.child.stdin.write(data(text))
        self.child.stdin.flush()

    def stdin_ends(self):
        self.child.stdin.close()

    def out_has(self, text):
        until(lambda: data(text) in self.out, f"stdout has {text!r}")

    def told(self):
        """As a person ends what would go on."""
        self.child.send_signal(signal.SIGTERM)

    def exits(self):
        self.child.wait(LIMIT_SECONDS)

    def listens(self, protocol, port):
        is_so = is_unix_open if protocol == "unix" else lambda port: is_open(protocol, port)
        until(lambda: is_so(port) or self.child.poll() is not None, f"it listens at {port}")
        assert is_so(port), "it ended before it listened"

    @staticmethod
    def joined(group):
        number = struct.unpack("=I", socket.inet_aton(group))[0]
        with open("/proc/net/igmp", encoding="ascii") as table:
            until(lambda: table.seek(0) == 0 and f"{number:08X}" in table.read(), f"{group} is joined")

    def file_has(self, name, text):
        until(lambda: os.path.exists(name) and self.text_in(name, text), f"{name} has {text!r}")

    @staticmethod
    def text_in(name, text):
        with open(name, "rb") as file:
            return data(text).lower() in file.read().lower()

    # Its partner.

    def listen(self, host, port):
        self.listener = socket.create_server((host, port), family=family_of(host))
        self.listener.settimeout(LIMIT_SECONDS)

    def listen_unix(self, name):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(name.replace("@", "\0", 1))
        self.listener.listen()
        self.listener.settimeout(LIMIT_SECONDS)

    def deaf(self, host, port):
        """Listens, and has no room for one more connection."""
        self.listener = socket.create_server((host, port), backlog=0)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((host, port))
            self.fillers.append(filler)

    def accept(self):
        self.link, self.address = self.listener.accept()
        self.link.settimeout(LIMIT_SECONDS)

    def from_(self, host, port=None):
        assert self.address[0] == host and port in (None, self.address[1]), f"it came from {self.address}"

    def connect(self, host, port):
        self.link = socket.create_connection((host, port), LIMIT_SECONDS)

    def refused(self, host, port):
        try:
            socket.create_connection((host, port), LIMIT_SECONDS).close()
        except ConnectionRefusedError:
            return
        raise AssertionError("it still listens")

    def connect_unix(self, name):
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(LIMIT_SECONDS)
        self.link.connect(name.replace("@", "\0", 1))

    def send(self, text, times=1):
        self.link.sendall(data(text) * times)

    def expect(self, text, times=1):
        wanted = data(text) * times
        got = b""
        while len(got) < len(wanted) and (piece := self.link.recv(len(wanted) - len(got))):
            got += piece
        assert got == wanted, f"it said {got[:99]!r}, {len(got)} bytes"

    def end(self):
        self.link.shutdown(socket.SHUT_WR)

    def ended(self):
        rest = self.link.recv(99)
        assert rest == b"", f"it said {rest!r}"

    def still_open(self):
        readable, _, _ = select.select([self.link], [], [], NEVER_SECONDS)
        assert not readable, "it ended its half, or said more"

    def close(self):
        self.link.close()

    def keep(self):
        """This connection stays; the next one is another."""
        self.kept = self.link

    def reset(self):
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.link.close()

    # TLS around the connection.

    def tls_server(self):
        """By here.pem and here.key."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("here.pem", "here.key")
        self.link = context.wrap_socket(self.link, server_side=True)

    def tls_server_refused(self):
        """The program does not want this certificate, which a server may learn from its next read alone."""
        try:
            self.tls_server()
            rest = self.link.recv(99)
        except (ssl.SSLError, ConnectionError):
            return
        assert rest == b"", f"it said {rest!r}"

    def tls_client(self, name):
        """Trusts here.pem, for this name."""
        context = ssl.create_default_context(cafile="here.pem")
        self.link = context.wrap_socket(self.link, server_hostname=name)

    def tls_close(self):
        """With the word that nothing more comes."""
        try:
            self.link.unwrap()
        except (ssl.SSLError, ConnectionError):
            pass  # the program was the faster one
        self.link.close()

    # Datagrams.

    def udp(self, host, port, interface=None):
        """Hears datagrams; those to a group by an interface."""
        self.link = socket.socket(family_of(host), socket.SOCK_DGRAM)
        self.link.settimeout(LIMIT_SECONDS)
        self.link.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        self.link.bind((host, port))
        if interface:
            index = socket.if_nametoindex(interface)
            member = socket.inet_aton(host) + struct.pack("=4si", bytes(4), index)
            self.link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)

    def udp_to(self, host, port, interface=None):
        self.link = socket.socket(family_of(host), socket.SOCK_DGRAM)
        self.link.settimeout(LIMIT_SECONDS)
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if interface:
            index = socket.if_nametoindex(interface)
            self.link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
        self.address = (host, port)

    def say(self, text):
        self.link.sendto(data(text), self.address)

    def hear(self, text, times=1, ttl=None):
        got, control, _, self.address = self.link.recvmsg(65535, 64)
        assert got == data(text) * times, f"it said {got[:99]!r}, {len(got)} bytes"
        for _, _, value in control:
            assert ttl in (None, struct.unpack("i", value)[0]), f"its TTL is {value}"


    def unheard(self):
        """What went around inside this machine would be here by now."""
        readable, _, _ = select.select([self.link], [], [], 0)
        assert not readable, "it was heard"


def main():
    table, *which = sys.argv[1:]
    with open(table, "rb") as file:
        rows = tomllib.load(file)["row"]
    if not which:
        print(json.dumps(rows))
        return
    name, side = which
    (row,) = [row for row in rows if row["name"] == name]
    signal.alarm(3 * LIMIT_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        files = {"stderr": "", "hosts": HOSTS, **row.get("files", {})}
        for file_name, text in files.items():
            with open(file_name, "wb") as file:
                file.write(data(text))
        certify = [CERTIFY] if row.get("certified") else []
        for command in ["ip link set lo up", "mount --bind hosts /etc/hosts", *certify, *row.get("network", [])]:
            subprocess.run(command, shell=True, check=True)
        # Debian has several programs of this name.
        os.symlink(subprocess.check_output(["sh", "-c", "command -v nc.openbsd"], text=True).strip(), "nc")
        os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
        os.environ["HOME"] = folder
        play = Row(row, side)
        result = {"code": None, "problem": None}
        try:
            result["code"] = play.play()
        except Wrong as wrong:
            result["problem"] = str(wrong)
        finally:
            if play.child and play.child.poll() is None:
                os.killpg(play.child.pid, signal.SIGKILL)
                play.child.wait()
        result["stdout"] = play.out.hex()
        with open("stderr", "r", encoding="utf-8", errors="replace") as file:
            result["stderr"] = file.read()
        print(json.dumps(result))
        os.chdir("/")


main()
