//! What one side of a measurement is told, and what it says in return: JSON in its arguments, JSON lines on its stdout.

use serde::{Deserialize, Serialize};

/// Who moves the bytes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Peer {
    /// cabo, sealed.
    Cabo,
    /// cabo, in plain.
    CaboPlain,
    /// Full frames as fast as the kernel takes them, and no other protocol: the limit of raw Ethernet.
    EthBlast,
    /// Full datagrams as fast as the kernel takes them, in GSO batches: the limit of UDP.
    UdpBlast,
    /// A server of `cabo::talk` for programs that know nothing of cabo, or a client of it.
    Talk,
    /// quinn with its own congestion control (cubic).
    Quinn,
    /// quinn with its experimental BBR.
    QuinnBbr,
    /// `cabo::talk` between cabo peers: `messages/1` in a sealed session.
    Messages,
    /// The course protocol, with its window of five.
    Redes,
    /// A bare copy loop over a kernel TCP socket.
    Tcp,
    /// A bare copy loop over rustls over a kernel TCP socket.
    Tls,
    /// A bare echo on tokio over TCP.
    Tokio,
    /// A bare copy loop over a Unix socket.
    Unix,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Task {
    /// The receiver counts `bytes` and takes the time from the first to the last.
    Transfer,
    /// The connecting side sends one byte and takes the time until one comes back, from before it connects.
    FirstByte,
    /// Many sessions; see `load`.
    Load,
    /// The receiver returns every message; see `messages`, as for the next two.
    Echo,
    /// The receiver counts messages.
    Sink,
    /// The receiver sends messages as long as they are taken.
    Source,
}

/// Which side this process is. The sender connects, the receiver listens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub enum Side {
    Sender,
    Receiver,
}

/// One side of one measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    pub peer: Peer,
    pub task: Task,
    pub side: Side,
    /// The only core that it may use.
    pub core: Option<usize>,
    /// Where the receiver listens: a cabo address, a socket address, an interface or a Unix name, as the peer has it.
    pub listen: String,
    /// Where the sender finds it.
    pub connect: String,
    /// All that is moved, or the payload of each message.
    pub bytes: u64,
    /// How many connections a client opens.
    pub connections: usize,
    /// What a message is, to `cabo::talk`.
    pub dialect: String,
    /// The receiver counts no longer than this.
    pub limit_seconds: f64,
    /// Bytes of a datagram, or of the payload of a frame, for peers that do not find out.
    pub datagram_bytes: usize,
    /// Congestion control that a TCP socket asks for, or cabo is told; `None`: the host's own, the default.
    pub congestion: Option<String>,
}

/// What a receiver counted, or what a connecting side waited.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Counted {
    pub bytes: u64,
    pub seconds: f64,
    /// Time on a core, user and kernel, of the whole process.
    pub cpu_seconds: f64,
}

/// What a sender says at the end.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Sent {
    pub cpu_seconds: f64,
    /// Whatever the peer tells about itself.
    pub note: String,
}
