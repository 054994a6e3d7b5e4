//! How bad a cable shall be: the flags that `relay`, `lab` and `demo` share, and the cable in words.

use std::ops::RangeInclusive;
use std::time::Duration;

use cabo::relay::{LinkConfig, RelayConfig};
use clap::Args;

use super::amount;
use crate::exit::Failure;

/// Preamble, check sequence and gap: what a frame takes on the wire beyond itself.
const FRAME_OVERHEAD_BYTES: usize = 24;
const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERNET_MTU_BYTES: u64 = 1500;
/// What IPv6 needs, to what a veth interface takes.
const MTU_BYTES: RangeInclusive<u32> = 1280..=65_535;

/// How bad a cable shall be, both ways.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cable")]
pub(crate) struct CableFlags {
    /// Share of packets lost, such as 1%
    #[arg(long, value_name = "SHARE", value_parser = amount::share)]
    loss: Option<f64>,
    /// Mean number of packets lost in a row
    #[arg(long, value_name = "PACKETS", value_parser = amount::packets)]
    burst: Option<f64>,
    /// Time from one end to the other, such as 10ms
    #[arg(long, value_name = "TIME", value_parser = amount::time)]
    delay: Option<Duration>,
    /// Random time of up to this much on top of the delay; it does not change the order
    #[arg(long, value_name = "TIME", value_parser = amount::time)]
    jitter: Option<Duration>,
    /// Share of packets that later ones overtake
    #[arg(long, value_name = "SHARE", value_parser = amount::share)]
    reorder: Option<f64>,
    /// Share of packets that arrive twice
    #[arg(long, value_name = "SHARE", value_parser = amount::share)]
    duplicate: Option<f64>,
    /// Share of packets in which one bit flips
    #[arg(long, value_name = "SHARE", value_parser = amount::share)]
    corrupt: Option<f64>,
    /// Bits a second, such as 200mbit
    #[arg(long, value_name = "RATE", value_parser = amount::rate)]
    rate: Option<u64>,
    /// Bytes that may wait where the rate is the limit [default: what it carries in a round trip, 64k at least]
    #[arg(long, value_name = "SIZE", value_parser = amount::size)]
    queue: Option<u64>,
    /// Longest packet in bytes, as `ip link` counts
    #[arg(long, value_name = "SIZE", value_parser = amount::size)]
    mtu: Option<u64>,
    /// The same number gives the same bad luck
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

impl CableFlags {
    /// Both directions: what was typed, and `default` for the rest.
    pub(crate) fn config(&self, default: &LinkConfig, seed: u64) -> RelayConfig {
        let link = LinkConfig {
            loss: self.loss.unwrap_or(default.loss),
            burst: self.burst.unwrap_or(default.burst),
            duplicate: self.duplicate.unwrap_or(default.duplicate),
            corrupt: self.corrupt.unwrap_or(default.corrupt),
            reorder: self.reorder.unwrap_or(default.reorder),
            delay: self.delay.unwrap_or(default.delay),
            jitter: self.jitter.unwrap_or(default.jitter),
            rate_bits_per_second: self.rate.unwrap_or(default.rate_bits_per_second),
            queue_bytes: self.queue.or(default.queue_bytes),
            per_packet_overhead_bytes: FRAME_OVERHEAD_BYTES,
            ..default.clone()
        };
        RelayConfig::symmetric(link, self.seed.unwrap_or(seed))
    }

    /// The same for a relay whose packets have `header_bytes` around them that it does not see.
    pub(crate) fn config_within(&self, header_bytes: usize) -> RelayConfig {
        let mut config = self.config(&LinkConfig::default(), 0);
        for link in [&mut config.forward, &mut config.backward] {
            link.per_packet_overhead_bytes += ETHERNET_HEADER_BYTES + header_bytes;
            link.mtu_bytes =
                self.mtu_bytes().map_or(0, |mtu| mtu.saturating_sub(header_bytes).max(1));
        }
        config
    }

    /// The same for a relay of whole frames.
    pub(crate) fn config_of_frames(&self) -> RelayConfig {
        let mut config = self.config(&LinkConfig::default(), 0);
        for link in [&mut config.forward, &mut config.backward] {
            link.mtu_bytes =
                self.mtu_bytes().map_or(0, |mtu| mtu.saturating_add(ETHERNET_HEADER_BYTES));
        }
        config
    }

    /// The longest packet, if there is a limit.
    pub(crate) fn mtu_bytes(&self) -> Option<usize> {
        self.mtu.map(|mtu| usize::try_from(mtu).unwrap_or(usize::MAX))
    }
}

impl CableFlags {
    /// The MTU of a lab's interfaces, which carry IPv6.
    pub(crate) fn mtu_of_lab(&self) -> Result<u32, Failure> {
        let mtu = self.mtu.unwrap_or(ETHERNET_MTU_BYTES);
        match u32::try_from(mtu) {
            Ok(bytes) if MTU_BYTES.contains(&bytes) => Ok(bytes),
            _ => Err(Failure::usage(format!(
                "--mtu {mtu}: interfaces of a lab take {} to {} bytes",
                MTU_BYTES.start(),
                MTU_BYTES.end()
            ))),
        }
    }
}

/// The flags that say `config`, for a relay in a process of its own.
pub(crate) fn arguments(config: &RelayConfig) -> Vec<String> {
    let link = &config.forward;
    let share = |share: f64| if share < 1.0 { share.to_string() } else { "100%".to_owned() };
    let time = |time: Duration| format!("{}us", time.as_secs_f64() * 1e6);
    let mut arguments = vec![
        format!("--loss={}", share(link.loss)),
        format!("--burst={}", link.burst),
        format!("--delay={}", time(link.delay)),
        format!("--jitter={}", time(link.jitter)),
        format!("--reorder={}", share(link.reorder)),
        format!("--duplicate={}", share(link.duplicate)),
        format!("--corrupt={}", share(link.corrupt)),
        format!("--seed={}", config.seed),
    ];
    if link.rate_bits_per_second > 0 {
        arguments.push(format!("--rate={}bit", link.rate_bits_per_second));
    }
    arguments.extend(link.queue_bytes.map(|bytes| format!("--queue={bytes}")));
    arguments
}

/// True for a cable that does nothing to what crosses it.
pub(crate) fn is_perfect(link: &LinkConfig) -> bool {
    *link
        == LinkConfig {
            per_packet_overhead_bytes: link.per_packet_overhead_bytes,
            ..LinkConfig::default()
        }
}

/// The cable in words: `50 Mbit/s, 10 ms delay, 1% loss in runs of 3, seed 7`.
pub(crate) fn describe(config: &RelayConfig) -> String {
    let link = &config.forward;
    if is_perfect(link) {
        return "perfect".to_owned();
    }
    let mut words = Vec::new();
    if link.rate_bits_per_second > 0 {
        words.push(rate_text(link.rate_bits_per_second as f64));
    }
    for (what, time) in [("delay", link.delay), ("jitter", link.jitter)] {
        if !time.is_zero() {
            words.push(format!("{time:?} {what}"));
        }
    }
    for (what, share) in [
        ("loss", link.loss),
        ("corruption", link.corrupt),
        ("reordering", link.reorder),
        ("duplication", link.duplicate),
    ] {
        if share > 0.0 {
            let percent = (share * 1e6).round() / 1e4;
            let runs = what == "loss" && link.burst > 1.0;
            let runs = if runs { format!(" in runs of {}", link.burst) } else { String::new() };
            words.push(format!("{percent}% {what}{runs}"));
        }
    }
    words.push(format!("seed {}", config.seed));
    words.join(", ")
}

/// `12.3 Mbit/s`.
pub(crate) fn rate_text(bits_per_second: f64) -> String {
    match bits_per_second {
        bits if bits >= 1e9 => format!("{} Gbit/s", short(bits / 1e9)),
        bits if bits >= 1e6 => format!("{} Mbit/s", short(bits / 1e6)),
        bits => format!("{} kbit/s", short(bits / 1e3)),
    }
}

fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_is_told_in_words() {
        let flags = CableFlags {
            loss: Some(0.01),
            burst: Some(3.0),
            delay: Some(Duration::from_millis(10)),
            rate: Some(50_000_000),
            seed: Some(7),
            ..CableFlags::default()
        };
        let config = flags.config_of_frames();
        assert_eq!(describe(&config), "50 Mbit/s, 10ms delay, 1% loss in runs of 3, seed 7");
        assert_eq!(describe(&CableFlags::default().config_of_frames()), "perfect");
    }

    #[test]
    fn a_relay_in_another_process_hears_the_same() {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(flatten)]
            cable: CableFlags,
        }
        let bad = CableFlags {
            loss: Some(1.0),
            burst: Some(2.5),
            delay: Some(Duration::from_nanos(10_000_001)),
            jitter: Some(Duration::from_micros(333)),
            reorder: Some(0.07),
            duplicate: Some(1e-9),
            corrupt: Some(0.123_456_789),
            rate: Some(999_999_999),
            queue: Some(12_345),
            seed: Some(u64::MAX),
            mtu: None,
        };
        for flags in [bad, CableFlags::default()] {
            let config = flags.config_of_frames();
            let words = std::iter::once("cabo".to_owned()).chain(arguments(&config));
            let typed = <Typed as clap::Parser>::try_parse_from(words).unwrap();
            assert_eq!(typed.cable.config_of_frames(), config);
        }
    }

    #[test]
    fn an_mtu_is_that_of_the_interface_whatever_the_relay_sees() {
        let flags = CableFlags { mtu: Some(1500), ..CableFlags::default() };
        assert_eq!(flags.config_of_frames().forward.mtu_bytes, 1514);
        assert_eq!(flags.config_within(28).forward.mtu_bytes, 1472);
    }
}
