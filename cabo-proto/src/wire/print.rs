//! Packets, records and frames on one line, for people. What a peer chose is escaped.

use std::fmt::{self, Display, Formatter};

use super::code::Code;
use super::discovery::Here;
use super::frame::{Ack, Close, Direction, Frame, Frames, Origin};
use super::packet::{Kind, Packet};
use super::params::Params;
use super::record::{RecordHeader, RecordKind};

/// As `Data phase 0 #7 to 1011121314151617, 37 bytes`.
impl Display for Packet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Initial { sender, number, cookie, .. } => {
                write!(f, "Initial #{number} from {sender}")?;
                if !cookie.is_empty() {
                    write!(f, " with a cookie of {}", cookie.len())?;
                }
                Ok(())
            }
            Kind::Handshake { sender, number, .. } => {
                write!(f, "Handshake #{number} from {sender}")
            }
            Kind::Data { phase, number, .. } => {
                write!(f, "Data phase {} #{number}", u8::from(*phase))
            }
            Kind::Cookie { sender, cookie } => {
                write!(f, "Cookie of {} from {sender}", cookie.len())
            }
            Kind::Discover { sender, .. } => write!(f, "Discover from {sender}"),
            Kind::Here { .. } => f.write_str("Here"),
            Kind::Reset { .. } => f.write_str("Reset"),
            Kind::VersionAnswer { sender, versions } => {
                write!(f, "Version answer of {} from {sender}", versions.len())
            }
            Kind::UnknownVersion { sender: Some(sender) } => write!(f, "Packet from {sender}"),
            Kind::UnknownVersion { sender: None } => f.write_str("Packet"),
        }?;
        write!(f, " to {}, version {}, {} bytes", self.receiver, self.version, self.length)
    }
}

/// As `Data phase 1, 512 bytes`.
impl Display for RecordHeader {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.kind {
            RecordKind::Initial => f.write_str("Initial"),
            RecordKind::Handshake => f.write_str("Handshake"),
            RecordKind::Data { phase } => write!(f, "Data phase {}", u8::from(phase)),
        }?;
        write!(f, ", {} bytes", self.length)
    }
}

/// As `STREAM client both-ways 0 @1000 +5 fin`.
impl Display for Frame<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Ping | Self::Admitted => Ok(()),
            Self::Pad(run) => write!(f, " x{run}"),
            Self::Ack(ack) => write!(f, " {ack}"),
            Self::Crypto { offset, data } => write!(f, " @{offset} +{}", data.len()),
            Self::ResetStream { stream, code, final_size } => {
                write!(f, " {stream} code {code} size {final_size}")
            }
            Self::StopSending { stream, code } => write!(f, " {stream} code {code}"),
            Self::MaxData(bytes) | Self::DataBlocked(bytes) => write!(f, " {bytes}"),
            Self::MaxStreamData { stream, bytes } => write!(f, " {stream} {bytes}"),
            Self::StreamBlocked { stream, limit } => write!(f, " {stream} {limit}"),
            Self::MaxStreams { direction: Direction::Both, count } => {
                write!(f, " both-ways {count}")
            }
            Self::MaxStreams { direction: Direction::One, count } => write!(f, " one-way {count}"),
            Self::PathChallenge(bytes) | Self::PathResponse(bytes) => {
                write!(f, " {:016x}", u64::from_be_bytes(*bytes))
            }
            Self::Close(close) => write!(f, " {close}"),
            Self::Datagram(data) => write!(f, " +{}", data.len()),
            Self::Stream { stream, offset, fin, data } => {
                write!(f, " {stream} @{offset} +{}{}", data.len(), if *fin { " fin" } else { "" })
            }
            Self::Unknown { kind, data } => write!(f, " {kind:#x} +{}", data.len()),
        }
    }
}

/// As `100..90, 87 after 250 us`.
impl Display for Ack<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, range) in self.ranges().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            match range.into_inner() {
                (low, high) if low == high => write!(f, "{separator}{high}"),
                (low, high) => write!(f, "{separator}{high}..{low}"),
            }?;
        }
        write!(f, " after {} us", self.delay_micros)
    }
}

/// As `protocol flow "too much"`.
impl Display for Close<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Protocol => write!(f, "protocol {}", Code(self.code)),
            Origin::Application => write!(f, "application {}", self.code),
        }?;
        write!(f, " {:?}", self.text())
    }
}

/// All parameters, those that were absent too.
impl Display for Params {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "idle_timeout {} ms, ", self.idle_timeout.as_millis())?;
        write!(f, "largest_packet {}, ", self.largest_packet)?;
        write!(f, "max_data {}, max_stream_data {}, ", self.max_data, self.max_stream_data)?;
        write!(
            f,
            "max_streams_both {}, max_streams_one {}, ",
            self.max_streams_both, self.max_streams_one
        )?;
        write!(f, "max_ack_delay {} us, burst {}, ", self.max_ack_delay.as_micros(), self.burst)?;
        write!(f, "largest_datagram {}", self.largest_datagram)?;
        if let Some(token) = &self.reset_token {
            write!(f, ", reset_token {:032x}", u128::from_be_bytes(*token))?;
        }
        if let Some(id) = &self.first_id {
            write!(f, ", first_id {id}")?;
        }
        if let Some(id) = &self.own_id {
            write!(f, ", own_id {id}")?;
        }
        if let Some(agent) = &self.agent {
            write!(f, ", agent {agent:?}")?;
        }
        if let Some(channel) = &self.channel {
            f.write_str(", channel ")?;
            channel.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

/// As `port 5555, fingerprint 00..ff, versions 1 2`.
impl Display for Here<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "port {}, fingerprint ", self.port)?;
        self.fingerprint.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(", versions")?;
        self.versions.iter().try_for_each(|version| write!(f, " {version}"))?;
        match self.name {
            Some(name) => write!(f, ", name \"{}\"", name.escape_ascii()),
            None => Ok(()),
        }
    }
}

/// The frames of a body on one line, and the error that ends them.
pub struct Body<'a>(pub &'a [u8]);

impl Display for Body<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, frame) in Frames::new(self.0).enumerate() {
            f.write_str(if place == 0 { "" } else { "; " })?;
            match frame {
                Ok(frame) => frame.fmt(f),
                Err(error) => write!(f, "malformed: {error}"),
            }?;
        }
        Ok(())
    }
}
