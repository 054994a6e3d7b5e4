//! The largest packet that the path takes (T-12): RFC 8899 without trust in any message of the network.
//!
//! Starts at the base, which every path must take, and rises only by what a padded probe has proved. A probe is not in
//! flight and its loss is no congestion.

use std::time::{Duration, Instant};

/// The largest packet that is sent unproved: what Ethernet carries. The caller subtracts its carrier's headers.
pub const BASE: usize = 1500;

/// What every path must take, bytes of a packet: a first packet has as many (S-3.3).
const FLOOR: usize = 1200;

const LADDER: [usize; 6] = [1500, 4000, 8996, 16_384, 32_768, 65_535]; // the last two: `lo` and virtual links
const PROBES_PER_SIZE: u32 = 3; // RFC 8899 section 5.1.2
const LOST_FULL_SIZE: u32 = 12; // in a row, none acknowledged between: a black hole, or a very bad wire
const BLACK_HOLE_PTOS: u32 = 2;
const CLOSE_ENOUGH: usize = 32; // bytes; a search this narrow is over
const SEARCH_AGAIN: Duration = Duration::from_secs(600);
const SEARCH_AFTER_FALL: Duration = Duration::from_secs(1); // soon, because a bad wire looks like a black hole
const BETWEEN_PROBES: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct Probe {
    number: u64,
    size: usize,
}

/// The search for the largest packet of one path. Sizes are bytes of a whole packet of ours, without what the carrier
/// puts around it.
#[derive(Clone, Debug)]
pub struct Mtu {
    base: usize,
    limit: usize, // own and the peer's
    overhead: usize,
    current: usize,
    failed: Option<usize>, // the smallest size that did not pass
    probe: Option<Probe>,
    tries: u32, // of the size being tried
    lost_in_row: u32,
    wait_until: Option<Instant>, // no probe before
    is_done: bool,               // until `wait_until`
}

impl Mtu {
    /// A search below `own_limit`, on a carrier that adds `overhead` bytes to each packet within the link's MTU.
    pub fn new(own_limit: usize, overhead: usize) -> Self {
        let base = (BASE - overhead.min(BASE)).min(own_limit);
        Self {
            base,
            limit: own_limit,
            overhead,
            current: base,
            failed: None,
            probe: None,
            tries: 0,
            lost_in_row: 0,
            wait_until: None,
            is_done: false,
        }
    }

    /// The peer takes no packet above `limit` bytes (T-12.5).
    pub fn on_peer_limit(&mut self, limit: usize) {
        self.limit = self.limit.min(limit);
        self.base = self.base.min(self.limit);
        self.current = self.current.min(self.limit);
    }

    /// The largest packet to send now.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The size of the probe to send now, if there is one to send. It must be exactly that long.
    pub fn probe_size(&mut self, now: Instant) -> Option<usize> {
        if self.probe.is_some() || self.wait_until.is_some_and(|until| now < until) {
            return None;
        }
        if std::mem::take(&mut self.is_done) {
            self.failed = None;
            self.tries = 0;
        }
        let next = self.next_size();
        if next.is_none() {
            self.is_done = true;
            self.wait_until = Some(now + SEARCH_AGAIN);
        }
        next
    }

    /// A step of the ladder while none failed, then halves.
    fn next_size(&self) -> Option<usize> {
        let ceiling = self.failed.unwrap_or(self.limit + 1).min(self.limit + 1);
        if ceiling <= self.current + 1
            || (self.failed.is_some() && ceiling - self.current <= CLOSE_ENOUGH)
        {
            return None;
        }
        let steps = LADDER.iter().map(|step| step.saturating_sub(self.overhead));
        let step = steps.chain([self.limit]).find(|&step| step > self.current && step < ceiling);
        step.map(|step| step.min(self.limit)).or(Some(self.current + (ceiling - self.current) / 2))
    }

    /// The probe of [`probe_size`](Self::probe_size) left as packet `number`.
    pub fn on_probe_sent(&mut self, now: Instant, number: u64, size: usize) {
        self.probe = Some(Probe { number, size });
        self.wait_until = Some(now + BETWEEN_PROBES);
    }

    /// A packet of the data space was acknowledged. The new size, where this proves one.
    pub fn on_acked(&mut self, number: u64, bytes: usize) -> Option<usize> {
        let least = if self.current > self.base { self.base } else { self.floor() };
        if bytes > least {
            self.lost_in_row = 0;
        }
        let probe = self.probe.take_if(|probe| probe.number == number)?;
        self.tries = 0;
        self.wait_until = None;
        if probe.size <= self.current || probe.size > self.limit {
            return None;
        }
        self.current = probe.size;
        Some(self.current)
    }

    /// A packet of the data space was lost. The new size, where this shows a black hole (T-12.4).
    pub fn on_lost(&mut self, now: Instant, number: u64, bytes: usize) -> Option<usize> {
        if let Some(probe) = self.probe.take_if(|probe| probe.number == number) {
            self.tries += 1;
            if self.tries >= PROBES_PER_SIZE {
                self.tries = 0;
                self.failed = Some(probe.size);
            }
            return None;
        }
        if bytes <= self.floor() || self.current <= self.floor() {
            return None;
        }
        self.lost_in_row += 1;
        if self.lost_in_row < LOST_FULL_SIZE { None } else { self.fall(now) }
    }

    /// A probe timeout passed, the `count`th without an acknowledgement. The new size, as in
    /// [`on_lost`](Self::on_lost).
    pub fn on_pto(&mut self, now: Instant, count: u32) -> Option<usize> {
        if count < BLACK_HOLE_PTOS || self.current <= self.floor() { None } else { self.fall(now) }
    }

    /// The least that we ever go down to.
    fn floor(&self) -> usize {
        FLOOR.min(self.base)
    }

    /// Down to the base, and if that is what does not pass, to the floor.
    fn fall(&mut self, now: Instant) -> Option<usize> {
        if self.current <= self.base {
            self.base = self.floor();
        }
        self.current = self.base;
        self.lost_in_row = 0;
        self.tries = 0;
        self.probe = None;
        self.failed = None;
        self.is_done = false;
        self.wait_until = Some(now + SEARCH_AFTER_FALL);
        Some(self.current)
    }

    /// The carrier refused a packet of `bytes` as too long (`EMSGSIZE`); a probe is also known by its size, where the
    /// caller no longer knows the number. The new size, where it is above the base.
    pub fn on_refused(&mut self, now: Instant, number: u64, bytes: usize) -> Option<usize> {
        let is_probe =
            self.probe.take_if(|probe| probe.number == number || probe.size == bytes).is_some();
        if is_probe || bytes > self.current {
            self.tries = 0;
            self.failed = Some(self.failed.map_or(bytes, |failed| failed.min(bytes)));
            return None;
        }
        if bytes <= self.floor() { None } else { self.fall(now) }
    }

    /// The path may have changed: searches again at once.
    pub fn on_hint(&mut self) {
        self.failed = None;
        self.tries = 0;
        self.is_done = false;
        self.wait_until = None;
    }

    /// When [`probe_size`](Self::probe_size) should be asked again.
    pub fn deadline(&self) -> Option<Instant> {
        self.wait_until.filter(|_| self.probe.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERHEAD: usize = 28; // IPv4 and UDP

    /// Runs a search over a path that takes packets of up to `passes`, and returns every size that it settled on.
    fn search(mtu: &mut Mtu, now: &mut Instant, passes: usize) -> Vec<usize> {
        let mut sizes = vec![mtu.current()];
        for number in 0..200 {
            let Some(size) = mtu.probe_size(*now) else {
                if mtu.deadline().is_some_and(|at| at > *now + Duration::from_secs(10)) {
                    return sizes;
                }
                *now += BETWEEN_PROBES;
                continue;
            };
            assert!(size > mtu.current(), "a probe is larger than what is known to pass");
            mtu.on_probe_sent(*now, number, size);
            assert_eq!(mtu.probe_size(*now), None, "one probe at a time");
            if size <= passes {
                sizes.extend(mtu.on_acked(number, size));
            } else {
                assert_eq!(mtu.on_lost(*now, number, size), None);
            }
        }
        sizes
    }

    #[test]
    fn it_climbs_the_ladder_to_the_limit() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(65_507, OVERHEAD);
        let sizes = search(&mut mtu, &mut now, usize::MAX);
        assert_eq!(sizes, [1472, 3972, 8968, 16_356, 32_740, 65_507]);
    }

    #[test]
    fn an_ethernet_path_is_searched_once_and_left_alone() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(1472, OVERHEAD);
        assert_eq!(search(&mut mtu, &mut now, 1472), [1472]);
        assert_eq!(mtu.deadline(), Some(now + SEARCH_AGAIN));
    }

    #[test]
    fn an_odd_path_is_found_by_halves() {
        for passes in [1500, 2000, 5000, 8999, 60_000] {
            let mut now = crate::sim::origin();
            let mut mtu = Mtu::new(65_507, OVERHEAD);
            let sizes = search(&mut mtu, &mut now, passes);
            let found = sizes.last().copied().unwrap_or(0);
            assert!(found <= passes && passes - found <= CLOSE_ENOUGH, "{found} for {passes}");
        }
    }

    #[test]
    fn neither_limit_is_ever_exceeded() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(9000, OVERHEAD);
        mtu.on_peer_limit(2000);
        assert_eq!(search(&mut mtu, &mut now, usize::MAX), [1472, 2000]);
        mtu.on_peer_limit(1300);
        assert_eq!((mtu.current(), mtu.probe_size(now + SEARCH_AGAIN)), (1300, None));
    }

    #[test]
    fn a_limit_below_the_base_is_the_base() {
        assert_eq!(Mtu::new(1280, OVERHEAD).current(), 1280);
    }

    #[test]
    fn a_black_hole_returns_to_the_base_and_is_searched_again() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(8968, OVERHEAD);
        search(&mut mtu, &mut now, usize::MAX);
        for number in 1000..1000 + u64::from(LOST_FULL_SIZE) - 1 {
            assert_eq!(mtu.on_lost(now, number, 8968), None);
        }
        assert_eq!(mtu.on_lost(now, 2000, 8968), Some(1472));
        assert_eq!(mtu.probe_size(now), None);
        now += SEARCH_AFTER_FALL;
        let sizes = search(&mut mtu, &mut now, 1500);
        assert!(sizes.last().is_some_and(|size| (1472..=1500).contains(size)));
    }

    #[test]
    fn a_large_packet_that_passes_is_no_black_hole() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(8968, OVERHEAD);
        search(&mut mtu, &mut now, usize::MAX);
        for number in 1000..1100 {
            assert_eq!(mtu.on_lost(now, number, 8968), None);
            assert_eq!(mtu.on_acked(number + 1000, 8000), None);
            assert_eq!(mtu.on_lost(now, number, 1472), None, "a small one tells nothing");
        }
        assert_eq!(mtu.on_pto(now, 1), None);
        assert_eq!(mtu.on_pto(now, 2), Some(1472));
    }

    #[test]
    fn what_the_carrier_refuses_is_not_tried_three_times() {
        let now = crate::sim::origin();
        let mut mtu = Mtu::new(9000, OVERHEAD);
        let size = mtu.probe_size(now).unwrap_or(0);
        mtu.on_probe_sent(now, 7, size);
        assert_eq!(mtu.on_refused(now, u64::MAX, size), None, "known by its size");
        let next = mtu.probe_size(now + BETWEEN_PROBES).unwrap_or(usize::MAX);
        assert!(next < size);
        mtu.on_probe_sent(now, 8, next);
        assert_eq!(mtu.on_refused(now, 8, next), None);
        assert_eq!(mtu.current(), BASE - OVERHEAD);
    }

    #[test]
    fn a_hint_starts_the_search_at_once() {
        let mut now = crate::sim::origin();
        let mut mtu = Mtu::new(9000, OVERHEAD);
        search(&mut mtu, &mut now, 1472);
        assert_eq!(mtu.probe_size(now), None);
        mtu.on_hint();
        assert!(mtu.probe_size(now).is_some());
    }
}
