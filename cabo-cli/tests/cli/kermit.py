"""The other end of the course protocol: sequence rss, stop and wait, in layout c69, written from its facts.

    kermit.py serve INTERFACE FOLDER [junk]      one counter for ever, as the programs have it
    kermit.py get INTERFACE NAME FILE            asks for the catalogue, then for the file, one counter for both
    kermit.py refuse INTERFACE NAME              says that its disk is full, until that is confirmed
    kermit.py vanish INTERFACE NAME COUNT        leaves after so many frames of the file
    kermit.py ask INTERFACE HEX                  asks for a name of any bytes, and prints the answer
    kermit.py watch INTERFACE FILE               one line of hex a frame, until SIGTERM
"""
import os, select, signal, socket, struct, sys, time

ACK, NACK, LIST, GET, DESC, DATA, END, ERROR = 0, 1, 0x0A, 0x0B, 0x11, 0x12, 0x1E, 0x1F


def crc8(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 0x80 else crc << 1) & 0xFF
    return crc


class Link:
    """A packet socket; on lo it hears itself and drops what it said."""

    def __init__(self, interface, has_junk=False):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((interface, 0))
        self.junk = has_junk
        self.sent = []
        self.is_loopback = interface == "lo"

    def send(self, kind, sequence, data=b""):
        fill = os.urandom if self.junk else bytes
        high = (lambda bits: os.urandom(1)[0] << bits & 0xFF) if self.junk else (lambda bits: 0)
        head = bytes([0x7E, len(data) | high(6), sequence | high(5), kind | high(5)])
        crc = crc8(data) if data or not self.junk else os.urandom(1)[0]
        frame = head + data + fill(64 - len(data)) + bytes([crc])
        if self.is_loopback:
            self.sent.append(frame)
        self.socket.send(frame)

    def receive(self, seconds):
        """The next frame as (kind, sequence, data, is_right); none when the time is over."""
        limit = time.monotonic() + seconds
        while True:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return None
            frame, address = self.socket.recvfrom(2048)
            if address[2] == 4 or frame[:1] != b"\x7e" or len(frame) < 69:
                continue
            if frame in self.sent:
                self.sent.remove(frame)
                continue
            size, sequence, kind = frame[1] & 0x3F, frame[2] & 0x1F, frame[3] & 0x1F
            data = frame[4 : 4 + size]
            return kind, sequence, data, crc8(data) == frame[68]

    def confirmed(self, kind, sequence, data=b""):
        """Sends until it is confirmed."""
        for _ in range(50):
            self.send(kind, sequence, data)
            while answer := self.receive(0.2):
                if answer[:2] == (ACK, sequence):
                    return
                if answer[:2] == (NACK, sequence):
                    break
        sys.exit(f"nobody confirms {kind:#x} {sequence}")


def serve(link, folder):
    number = 0
    while True:
        request = link.receive(3600)
        if request is None or request[0] not in (LIST, GET):
            continue  # as the programs do, it looks at no number but its own
        kind, _, data, is_right = request
        if not is_right:
            link.send(NACK, number)
            continue
        link.send(ACK, number)

        def say(kind, data=b""):
            nonlocal number
            number = (number + 1) % 32
            link.confirmed(kind, number, data)

        if kind == LIST:
            for name in os.listdir(folder):
                say(DATA, name.encode())
            say(END)
        else:
            path = os.path.join(folder, data.split(b"\0")[0].decode())
            if not os.path.isfile(path):
                say(ERROR, struct.pack("<i", 2))
            else:
                say(DESC, struct.pack("<q", os.path.getsize(path)))
                when = time.localtime(os.path.getmtime(path))
                say(DESC, time.strftime("%Y-%m-%d %H:%M:%S", when).encode())
                with open(path, "rb") as file:
                    while chunk := file.read(63):
                        say(DATA, chunk)
                say(END)
        number = (number + 1) % 32


class Client:
    def __init__(self, link):
        self.link, self.number = link, 0

    def ask(self, kind, data=b""):
        self.link.confirmed(kind, self.number, data)
        self.number = (self.number + 1) % 32

    def frames(self):
        """The numbered frames of an answer, each confirmed, to its last."""
        while True:
            got = self.link.receive(10)
            if got is None:
                sys.exit("the server is silent")
            kind, sequence, data, is_right = got
            if kind in (ACK, NACK, LIST, GET):
                continue
            if not is_right:
                self.link.send(NACK, sequence)
                continue
            if sequence != self.number:
                self.link.send(ACK, sequence)
                continue
            yield kind, data
            self.link.send(ACK, sequence)
            self.number = (self.number + 1) % 32
            if kind in (END, ERROR):
                return


def main():
    verb, interface = sys.argv[1:3]
    link = Link(interface, "junk" in sys.argv)
    client = Client(link)
    if verb == "serve":
        print("ready", flush=True)
        serve(link, sys.argv[3])
    elif verb == "watch":
        def end(*_):
            link.socket.setblocking(False)  # what came is still written

        signal.signal(signal.SIGTERM, end)
        with open(sys.argv[3], "w", buffering=1) as out:
            print("ready", flush=True)
            while True:
                if link.socket.gettimeout() is None:
                    select.select([link.socket], [], [], 0.05)
                try:
                    frame, address = link.socket.recvfrom(2048, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if link.socket.gettimeout() is None:
                        continue
                    break
                if address[2] == 4 and frame[:1] == b"\x7e":
                    out.write(frame.hex() + "\n")
    elif verb == "ask":
        client.ask(GET, bytes.fromhex(sys.argv[3]))
        for kind, data in client.frames():
            print(f"{kind:#x} {data.hex()}")
    elif verb == "get":
        client.ask(LIST)
        for kind, data in client.frames():
            if kind == DATA:
                print(data.decode())
        client.ask(GET, sys.argv[3].encode())
        described, received = [], b""
        for kind, data in client.frames():
            if kind == DESC:
                described.append(data)
            elif kind == DATA:
                received += data
            elif kind == ERROR:
                sys.exit(f"error {struct.unpack('<i', data)[0]}")
        if struct.unpack("<q", described[0])[0] != len(received):
            sys.exit("the size is wrong")
        print(described[1].decode())
        with open(sys.argv[4], "wb") as file:
            file.write(received)
    elif verb == "refuse":
        client.ask(GET, sys.argv[3].encode())
        count = 0
        for kind, data in client.frames():
            count += 1
            if count == 2:
                link.confirmed(ERROR, (client.number + 2) % 32, struct.pack("<i", 3))
                print("refused")
                return
    elif verb == "vanish":
        client.ask(GET, sys.argv[3].encode())
        left = int(sys.argv[4])
        for kind, data in client.frames():
            left -= kind == DATA
            if left == 0:
                return


main()
