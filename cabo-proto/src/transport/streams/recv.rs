//! The receiving half of one stream (T-16): from pieces in any order to bytes in order.
//!
//! Bytes lie in pages that are taken when first touched, and are small while little is in them, so what a peer can make
//! us hold is bounded by the credit it has, however it cuts and orders its pieces. Pages go as soon as they are read, so
//! a stream that waits holds none.

use std::collections::VecDeque;

use crate::transport::ranges::RangeSet;

/// Bytes of a page.
const PAGE_BYTES: u64 = 16 * 1024;

/// Holes in one stream that we keep account of. An honest peer has at most 65,536 packets under way (T-15), and between
/// any two holes one of them came.
const HOLES_MAX: usize = 1 << 15;

/// So much of a page is held in memory of its own size: a few bytes on each of many streams must not cost a page each.
const SMALL_BYTES: usize = 4 * 1024;

/// Places for pages that a stream keeps when it has caught up.
const PAGES_KEPT: usize = 16;

/// Why a piece was refused; the connection ends with the code of the same name (W-6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    Flow,
    FinalSize,
    Buffer,
}

/// What a read found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Read {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Blocked,
    /// The end of the stream.
    End,
    /// The peer gave the stream up, with this code.
    Reset(u64),
}

/// The receiving half of one stream.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    pages: VecDeque<Option<Vec<u8>>>, // each as long as the last byte in it that is here
    origin: u64,                      // the first byte of the first page; never beyond `read`
    read: u64,                        // all before it went to the application
    contiguous: u64,                  // all before it is here
    ahead: RangeSet,                  // here, beyond a hole
    highest: u64,                     // one past the highest byte seen
    fin: Option<u64>,
    reset: Option<u64>,
    stopped: Option<u64>, // the application wants no more, with this code
    is_stop_acked: bool,
    is_end_read: bool,
}

impl RecvHalf {
    pub(crate) fn new() -> Self {
        Self {
            pages: VecDeque::new(),
            origin: 0,
            read: 0,
            contiguous: 0,
            ahead: RangeSet::new(),
            highest: 0,
            fin: None,
            reset: None,
            stopped: None,
            is_stop_acked: false,
            is_end_read: false,
        }
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.read
    }

    /// Bytes of the stream behind its first hole, the holes among them included.
    pub(crate) fn stuck(&self) -> u64 {
        self.highest - self.contiguous
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.pages.iter().flatten().map(Vec::capacity).sum()
    }

    #[cfg(test)]
    pub(super) fn pages_held(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    /// Bytes that a read could give now.
    pub(crate) fn available(&self) -> u64 {
        self.contiguous.saturating_sub(self.read)
    }

    pub(crate) fn is_readable(&self) -> bool {
        let has_news =
            self.contiguous > self.read || self.reset.is_some() || self.fin == Some(self.read);
        has_news && self.stopped.is_none()
    }

    /// Takes a piece; `limit` is the credit that we gave. Returns how far `highest` moved.
    pub(crate) fn insert(
        &mut self,
        offset: u64,
        data: &[u8],
        fin: bool,
        limit: u64,
    ) -> Result<u64, Refused> {
        let end = offset + data.len() as u64; // the parser keeps it below 2^62
        self.check_end(end, fin)?;
        if end > limit {
            return Err(Refused::Flow);
        }
        if fin {
            self.fin = Some(end);
        }
        let moved = end.saturating_sub(self.highest);
        self.highest = self.highest.max(end);
        if self.reset.is_some() || self.stopped.is_some() {
            // Nobody will read it. It still counts as consumed, so that the credit of the connection comes back.
            self.read = self.highest;
            self.contiguous = self.highest;
            return Ok(moved);
        }
        if end <= self.contiguous || data.is_empty() {
            return Ok(moved);
        }
        let skip = self.contiguous.saturating_sub(offset);
        let (start, data) = (offset + skip, &data[skip as usize..]);
        self.store(start, data);
        if start > self.contiguous {
            self.ahead.insert_range(start..end);
            return if self.ahead.len() > HOLES_MAX { Err(Refused::Buffer) } else { Ok(moved) };
        }
        self.contiguous = end;
        while let Some(range) = self.ahead.first().filter(|range| range.start <= self.contiguous) {
            self.contiguous = self.contiguous.max(range.end);
            self.ahead.remove_below(range.end);
        }
        Ok(moved)
    }

    fn check_end(&self, end: u64, fin: bool) -> Result<(), Refused> {
        let is_consistent = match self.fin {
            Some(size) => end <= size && (!fin || end == size),
            None => !fin || end >= self.highest,
        };
        if is_consistent { Ok(()) } else { Err(Refused::FinalSize) }
    }

    fn store(&mut self, mut at: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let index = ((at - self.origin) / PAGE_BYTES) as usize;
            let from = ((at - self.origin) % PAGE_BYTES) as usize;
            let len = data.len().min(PAGE_BYTES as usize - from);
            if self.pages.len() <= index {
                self.pages.resize_with(index + 1, || None);
            }
            let page = self.pages[index].get_or_insert_with(Vec::new);
            if from + len > SMALL_BYTES {
                page.reserve_exact(PAGE_BYTES as usize - page.len());
            }
            put_at(page, from, &data[..len]);
            (at, data) = (at + len as u64, &data[len..]);
        }
    }

    /// Holds no page any more; what comes next begins a new one.
    fn drop_pages(&mut self) {
        self.pages.clear();
        self.pages.shrink_to(PAGES_KEPT);
        self.origin = self.read;
    }

    /// The peer gave up, having sent `size` bytes. Returns how far `highest` moved.
    pub(crate) fn on_reset(&mut self, code: u64, size: u64, limit: u64) -> Result<u64, Refused> {
        if size < self.highest || self.fin.is_some_and(|fin| fin != size) {
            return Err(Refused::FinalSize);
        }
        if size > limit {
            return Err(Refused::Flow);
        }
        let moved = size - self.highest;
        if self.fin != Some(self.contiguous) || self.reset.is_some() {
            self.reset = Some(code);
            (self.read, self.contiguous) = (size, size);
            self.ahead = RangeSet::new();
            self.drop_pages();
        }
        self.fin = Some(size);
        self.highest = size;
        Ok(moved)
    }

    /// The application wants no more; true if the peer has to be told.
    pub(crate) fn stop(&mut self, code: u64) -> bool {
        if self.stopped.is_some() || self.is_end_read {
            return false;
        }
        if self.reset.is_some() {
            self.is_end_read = true; // nobody will come to read it
            return false;
        }
        self.stopped = Some(code);
        self.read = self.highest;
        self.contiguous = self.highest;
        self.ahead = RangeSet::new();
        self.drop_pages();
        self.fin != Some(self.highest)
    }

    /// The code of a STOP_SENDING frame that is still wanted.
    pub(crate) fn stop_frame(&self) -> Option<u64> {
        self.stopped.filter(|_| !self.is_stop_acked && self.fin.is_none())
    }

    pub(crate) fn on_stop_acked(&mut self) {
        self.is_stop_acked = true;
    }

    /// Copies what is next into `out`.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Read {
        if let Some(code) = self.reset {
            self.is_end_read = true;
            return Read::Reset(code);
        }
        let mut done = 0;
        while done < out.len() && self.read < self.contiguous {
            let from = (self.read - self.origin) as usize;
            let here = (self.contiguous - self.read).min(PAGE_BYTES - from as u64) as usize;
            let len = here.min(out.len() - done);
            if let Some(Some(page)) = self.pages.front() {
                out[done..done + len].copy_from_slice(&page[from..from + len]);
            }
            self.read += len as u64;
            done += len;
            if self.read - self.origin == PAGE_BYTES {
                self.pages.pop_front();
                self.origin = self.read;
            }
        }
        if self.read == self.highest && !self.pages.is_empty() {
            self.drop_pages();
        }
        if done > 0 || out.is_empty() {
            return Read::Bytes(done);
        }
        if self.fin == Some(self.read) {
            self.is_end_read = true;
            return Read::End;
        }
        Read::Blocked
    }

    /// True when all has come and nobody will ask again.
    pub(crate) fn is_done(&self) -> bool {
        match self.fin {
            Some(size) => self.is_end_read || (self.stopped.is_some() && self.highest == size),
            None => false,
        }
    }

    /// True while more credit is of use.
    pub(crate) fn wants_credit(&self) -> bool {
        self.fin.is_none() && self.stopped.is_none()
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.drop_pages();
    }
}

/// Puts `data` into a page at `from`. Only where a hole lies before it are bytes written that nobody sent.
fn put_at(page: &mut Vec<u8>, from: usize, data: &[u8]) {
    if page.len() < from {
        page.resize(from, 0);
    }
    let (over, beyond) = data.split_at(data.len().min(page.len() - from));
    page[from..from + over.len()].copy_from_slice(over);
    page.extend_from_slice(beyond);
}
