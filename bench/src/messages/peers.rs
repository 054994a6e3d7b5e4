//! Who is measured: how a server of each kind is started, and who loads it.

use std::process::Command;

use anyhow::{Result, anyhow};
use cabo::lab::Host;

use super::process::{self, Process};
use super::programs::{self, Programs};
use super::{Bench, Placement};
use crate::job::{Job, Peer, Side, Task};

/// Where every server listens, on a host of its own.
const ADDRESS: &str = "127.0.0.1";
const PORT: u16 = 5555;

/// One peer of a row.
#[derive(Clone)]
pub struct Entry {
    pub name: &'static str,
    server: Server,
    load: Load,
}

#[derive(Clone)]
enum Server {
    /// A program of `bench/foreign`.
    Foreign(&'static str),
    Python,
    Sockperf,
    /// This program.
    Own {
        peer: Peer,
        dialect: &'static str,
    },
}

#[derive(Clone, PartialEq)]
enum Load {
    /// The generator, over what `wire.h` calls so.
    Generator(&'static str),
    /// A client of the server's own kind.
    Own,
}

impl Entry {
    /// A program of `bench/foreign`.
    pub const fn foreign(name: &'static str, program: &'static str, wire: &'static str) -> Self {
        Self { name, server: Server::Foreign(program), load: Load::Generator(wire) }
    }

    /// A server of `cabo::talk`.
    pub const fn talk(name: &'static str, dialect: &'static str, wire: &'static str) -> Self {
        let server = Server::Own { peer: Peer::Talk, dialect };
        Self { name, server, load: Load::Generator(wire) }
    }

    /// The bare echo on tokio.
    pub const fn tokio() -> Self {
        let server = Server::Own { peer: Peer::Tokio, dialect: "" };
        Self { name: "tokio", server, load: Load::Generator("raw") }
    }

    /// A server of this program with its own client.
    pub const fn own(name: &'static str, peer: Peer, dialect: &'static str) -> Self {
        Self { name, server: Server::Own { peer, dialect }, load: Load::Own }
    }

    pub const fn python() -> Self {
        Self { name: "python", server: Server::Python, load: Load::Generator("raw") }
    }

    pub const fn sockperf() -> Self {
        Self { name: "sockperf*", server: Server::Sockperf, load: Load::Own }
    }

    pub fn is_sockperf(&self) -> bool {
        matches!(self.server, Server::Sockperf)
    }

    /// Why it cannot be measured here.
    pub fn missing(&self, programs: &Programs) -> Option<String> {
        match self.server {
            Server::Foreign(program) => programs.path(program).err(),
            Server::Python => Programs::find("python3", "python3").err(),
            Server::Sockperf => Programs::find("sockperf", "sockperf").err(),
            Server::Own { .. } => None,
        }
    }

    /// A server that listens, and whoever will load it with its connections open.
    pub fn start(
        &self,
        bench: &Bench,
        placement: Placement,
        task: Task,
        payload_bytes: usize,
        connections: usize,
    ) -> Result<(Process, Process)> {
        let server = self.serve(bench, placement, task, payload_bytes)?;
        let load = self.load(bench, &server, placement, task, payload_bytes, connections)?;
        Ok((server.process, load))
    }

    /// A server that listens, on a host of its own.
    pub fn serve(
        &self,
        bench: &Bench,
        placement: Placement,
        task: Task,
        payload_bytes: usize,
    ) -> Result<Serving> {
        let host = bench.lab.host("messages")?;
        let word = match task {
            Task::Sink => "sink",
            Task::Source => "source",
            _ => "echo",
        };
        let mut command: Command;
        match &self.server {
            Server::Foreign(program) => {
                let path = bench.programs.path(program).map_err(|missing| anyhow!(missing))?;
                command = host.command(path);
                command.args([word, ADDRESS, &PORT.to_string(), &payload_bytes.to_string()]);
            }
            Server::Python => {
                command = host.command("python3");
                command.arg(programs::python_echo()).args([ADDRESS, &PORT.to_string()]);
            }
            Server::Sockperf => {
                command = host.command("sockperf");
                command.args(["server", "--tcp", "-i", ADDRESS, "-p", &PORT.to_string()]);
            }
            Server::Own { .. } => {
                let job = self.job(Side::Receiver, task, payload_bytes, 0);
                command = process::side(&host, &job)?;
            }
        }
        let mut process = Process::start(command, placement.server)?;
        process.wait_until_it_listens(PORT)?;
        Ok(Serving { process, host })
    }

    /// Whoever loads it, with its connections open.
    pub fn load(
        &self,
        bench: &Bench,
        server: &Serving,
        placement: Placement,
        task: Task,
        payload_bytes: usize,
        connections: usize,
    ) -> Result<Process> {
        let command = match self.load {
            Load::Generator(wire) => {
                let path = bench.programs.path("generator").map_err(|missing| anyhow!(missing))?;
                let mut command = server.host.command(path);
                command.args([wire, ADDRESS, &PORT.to_string(), &payload_bytes.to_string()]);
                command.arg(connections.to_string());
                command
            }
            Load::Own => {
                let job = self.job(Side::Sender, task, payload_bytes, connections);
                process::side(&server.host, &job)?
            }
        };
        let mut load = Process::start(command, placement.generator)?;
        load.wait_until_ready()?;
        Ok(load)
    }

    /// sockperf's own client, which measures by itself.
    pub fn sockperf_client(
        &self,
        server: &Serving,
        placement: Placement,
        payload_bytes: usize,
        seconds: u64,
    ) -> Result<Process> {
        let mut command = server.host.command("sockperf");
        command.args(["ping-pong", "--tcp", "--full-rtt", "-i", ADDRESS, "-p", &PORT.to_string()]);
        command.args(["-m", &payload_bytes.to_string(), "-t", &seconds.to_string()]);
        Process::start(command, placement.generator)
    }

    fn job(&self, side: Side, task: Task, payload_bytes: usize, connections: usize) -> Job {
        let Server::Own { peer, dialect } = self.server else {
            unreachable!("only a server of this program has a job")
        };
        let place = format!("{ADDRESS}:{PORT}");
        let place = match peer {
            Peer::Cabo | Peer::CaboPlain => format!("tcp://{place}"),
            _ => place,
        };
        Job {
            peer,
            task,
            side,
            core: None,
            listen: place.clone(),
            connect: place,
            bytes: payload_bytes as u64,
            connections,
            dialect: dialect.into(),
            limit_seconds: 120.0,
            datagram_bytes: 0,
            congestion: None,
        }
    }
}

/// A server that listens, and its host.
pub struct Serving {
    pub process: Process,
    host: Host,
}
