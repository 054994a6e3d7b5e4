#!/usr/bin/env python3
"""Answers of multicast DNS that nobody asked for, as a stranger sends them (RFC 6762, RFC 6763).

  mdns.py ADDRESS answer NAME FINGERPRINT PORT IP   says so, five times a second
  mdns.py ADDRESS flood                             says all sorts of things, as fast as it can
"""

import ipaddress
import random
import socket
import struct
import sys
import time

GROUP = ("224.0.0.251", 5353)
TYPES = [b"_cabo._udp.local", b"_cabo._tcp.local"]
PTR, TXT, SRV, A = 12, 16, 33, 1


def labels(*parts):
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def record(name, kind, data, ttl=120):
    flush = 0 if kind == PTR else 0x8000
    return name + struct.pack(">HHIH", kind, flush | 1, ttl, len(data)) + data


def answer(instance, kind, texts, port, ip):
    service = kind.split(b".")
    full, host = labels(instance, *service), labels(b"h-" + instance[:40].hex().encode()[:50], b"local")
    txt = b"".join(bytes([len(text)]) + text for text in texts) or b"\0"
    records = [
        record(labels(*service), PTR, full),
        record(full, SRV, struct.pack(">HHH", 0, 0, port) + host),
        record(full, TXT, txt),
        record(host, A, ipaddress.ip_address(ip).packed),
    ]
    return struct.pack(">HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def nonsense(dice):
    """A service that does not exist, with a name to drive a terminal and texts that are too long."""
    instance = b"\x1b[2J\n" + bytes(dice.choices(range(256), k=dice.randrange(1, 50)))
    texts = [b"fp=" + bytes(dice.choices(b"0123456789abcdefghjkmnpqrstvwxyz", k=24)), b"v=1"]
    if dice.random() < 0.5:
        texts += [b"name=\x1b]0;" + bytes(dice.choices(range(256), k=200)) for _ in range(4)]
    ip = ".".join(str(dice.randrange(256)) for _ in range(4))
    packet = answer(instance, dice.choice(TYPES), texts, dice.randrange(65536), ip)
    if dice.random() < 0.2:
        packet = packet[: dice.randrange(len(packet))]  # cut anywhere
    return packet


def main(address, what, *words):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    out.bind((address, 5353))
    dice = random.Random(7)
    print("ready", flush=True)
    while True:
        if what == "answer":
            name, print_, port, ip = words
            texts = [b"fp=" + print_.encode(), b"v=1", b"name=" + name.encode()]
            out.sendto(answer(name.encode(), TYPES[0], texts, int(port), ip), GROUP)
            time.sleep(0.2)
        else:
            out.sendto(nonsense(dice), GROUP)


main(*sys.argv[1:])
