//! A stream connection of which each call is told: the same calls on the same socket, and what came of them.
//!
//! Neighbours: `mod.rs` tells, `wire` finds the words.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::records::{Records, phase};
use super::tcp_info::TcpInfo;
use super::wire::Ending;
use super::{Closing, Kind, Side, is_watched, outcome, tell, wire};
use crate::carrier::ByteStream;

/// The connection, behind a watch where there is one.
pub(in crate::carrier) fn stream<S>(stream: S, kind: Kind, side: Side) -> Box<dyn ByteStream>
where
    S: ByteStream + AsFd + 'static,
{
    if !is_watched() {
        return Box::new(stream);
    }
    let descriptor = stream.as_fd().as_raw_fd();
    let closing = Closing::of(descriptor, Ending::of(kind, side));
    let segments_in = TcpInfo::of(descriptor, kind).map_or(0, |info| info.data_segments_in);
    let (records_in, records_out) = (Records::default(), Records::default());
    Box::new(Watched { closing, stream, descriptor, kind, segments_in, records_in, records_out })
}

#[derive(Debug)]
struct Watched<S> {
    closing: Closing, // first, so that it is told of while the descriptor is still open
    stream: S,
    descriptor: RawFd,
    kind: Kind,
    /// Segments with data that had come when we last looked.
    segments_in: u32,
    /// What crosses it, where TLS is above.
    records_in: Records,
    records_out: Records,
}

impl<S> Watched<S> {
    fn read(&mut self, asked: usize, came_in: &[u8], answer: &io::Result<usize>) {
        let result = outcome(answer, |len| *len as i64);
        let info = TcpInfo::of(self.descriptor, self.kind);
        let came = info.map(|info| info.data_segments_in.wrapping_sub(self.segments_in));
        self.segments_in = info.map_or(0, |info| info.data_segments_in);
        self.closing.now_of(|ending| ending.heard(result));
        let mut wire = wire::read(self.kind, asked, came, info, result);
        if let Some(phase) = phase() {
            wire.push_str(&self.records_in.cross(came_in, phase));
        }
        let arguments = format!("{}, {asked}", self.descriptor);
        tell("recv", Some(self.descriptor), arguments, Some(result), wire);
    }

    fn written(
        &mut self,
        name: &'static str,
        parts: &[IoSlice<'_>],
        before: Option<TcpInfo>,
        answer: &io::Result<usize>,
    ) {
        let result = outcome(answer, |len| *len as i64);
        let after = TcpInfo::of(self.descriptor, self.kind);
        self.closing.now_of(|ending| ending.said(result));
        let mut wire = wire::written(self.kind, before.zip(after), result);
        if let (Some(phase), Ok(taken)) = (phase(), answer) {
            let went: Vec<u8> =
                parts.iter().flat_map(|part| part.iter().copied()).take(*taken).collect();
            wire.push_str(&self.records_out.cross(&went, phase));
        }
        let asked = parts.iter().map(|part| part.len()).sum();
        let arguments = format!("{}, {}", self.descriptor, wire::bytes(asked));
        tell(name, Some(self.descriptor), arguments, Some(result), wire);
    }
}

impl<S: ByteStream + AsFd> ByteStream for Watched<S> {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        Some(self.stream.as_fd())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (asked, had) = (into.remaining(), into.filled().len());
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        let len = into.filled().len().saturating_sub(had);
        polled.map(|answer| {
            let answer = answer.map(|()| len);
            self.read(asked, into.filled().get(had..).unwrap_or_default(), &answer);
            answer.map(drop)
        })
    }
}

impl<S: AsyncWrite + AsFd + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = TcpInfo::of(self.descriptor, self.kind);
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        polled.map(|answer| {
            self.written("send", &[IoSlice::new(bytes)], before, &answer);
            answer
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = TcpInfo::of(self.descriptor, self.kind);
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        polled.map(|answer| {
            self.written("writev", parts, before, &answer);
            answer
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// What the runtime does, which would not say when the connection was over before.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = TcpInfo::of(self.descriptor, self.kind);
        let answer = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        let result = outcome(&answer, |()| 0);
        self.closing.now_of(|ending| ending.shut(before, result));
        let after = TcpInfo::of(self.descriptor, self.kind);
        let wire = wire::shut(self.kind, before, after, result);
        let arguments = format!("{}, SHUT_WR", self.descriptor);
        tell("shutdown", Some(self.descriptor), arguments, Some(result), wire);
        let is_over = result == Err(libc::ENOTCONN);
        Poll::Ready(if is_over { Ok(()) } else { answer })
    }
}
