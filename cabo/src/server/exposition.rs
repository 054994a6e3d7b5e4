//! The counts of a server as OpenMetrics text: names begin with `cabo_`, end with their unit, and counters with `_total`.
//!
//! Every label is a word of ours: no peer's byte gets into it, and no peer can make one more series.

use std::fmt;

use cabo_proto::session::endpoint::Dropped;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::stats::{Packets, ServerStats, Traffic};

/// All counts in the text format.
pub(super) fn text(stats: ServerStats) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("cabo");
    registry.register_collector(Box::new(Counts(stats)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Counts(ServerStats);

type Label = [(&'static str, &'static str); 1];

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        by_carrier(&mut encoder, stats)?;
        if let Some(round_trip) = stats.round_trip {
            let help = "Round trips of the sessions open now, on carriers of datagrams: nearest, median, farthest.";
            let unit = Some(&Unit::Seconds);
            let mut family =
                encoder.encode_descriptor("session_round_trip", help, unit, MetricType::Gauge)?;
            let of =
                [("0", round_trip.smallest), ("0.5", round_trip.median), ("1", round_trip.largest)];
            for (quantile, time) in of {
                let label: Label = [("quantile", quantile)];
                family.encode_family(&label)?.encode_gauge(&time.as_secs_f64())?;
            }
        }
        let help = "Peers that were sent away, by reason.";
        counters(&mut encoder, "sessions_refused", None, help, "reason", &stats.refused)?;
        let help = "Requests that were begun, by service.";
        counters(&mut encoder, "requests", None, help, "service", &stats.requests)?;
        let help = "Requests that ended without a whole answer.";
        counter(&mut encoder, "requests_failed", help, stats.requests_failed)?;
        let reasons: Vec<_> =
            stats.drops.by_reason.iter().map(|(why, count)| (word(*why), *count)).collect();
        let help = "Packets from outside of sessions that were dropped, by reason.";
        counters(&mut encoder, "packets_dropped", None, help, "reason", &reasons)?;
        let help = "Packets that the kernel dropped because our buffers were full.";
        counter(&mut encoder, "packets_dropped_by_kernel", help, stats.drops.kernel)
    }
}

fn by_carrier(encoder: &mut DescriptorEncoder<'_>, stats: &ServerStats) -> fmt::Result {
    let all = |what: fn(&Traffic) -> u64| -> Vec<_> {
        stats.traffic.iter().map(|(carrier, traffic)| (*carrier, what(traffic))).collect()
    };
    let of_packets = |what: fn(&Packets) -> u64| -> Vec<_> {
        let packets = |(carrier, traffic): (&&'static str, &Traffic)| {
            traffic.packets.map(|packets| (*carrier, what(&packets)))
        };
        stats.traffic.iter().filter_map(packets).collect()
    };
    let help = "Sessions open now.";
    let mut family = encoder.encode_descriptor("sessions", help, None, MetricType::Gauge)?;
    for (carrier, sessions) in all(|of| of.sessions) {
        family.encode_family(&[("carrier", carrier)])?.encode_gauge(&sessions)?;
    }
    let bytes = Some(&Unit::Bytes);
    let mut counters =
        |name, unit, help, values: Vec<_>| counters(encoder, name, unit, help, "carrier", &values);
    let admitted = all(|of| of.sessions + of.sessions_ended);
    counters("sessions_admitted", None, "Sessions that were let in.", admitted)?;
    let help = "Bytes sent in sessions, with headers and tags of ours.";
    counters("sent", bytes, help, all(|of| of.bytes_sent))?;
    let help = "Bytes received in sessions, with headers and tags of ours.";
    counters("received", bytes, help, all(|of| of.bytes_received))?;
    counters("packets_sent", None, "Packets sent in sessions.", of_packets(|of| of.sent))?;
    let help = "Packets received in sessions.";
    counters("packets_received", None, help, of_packets(|of| of.received))?;
    let help = "Packets sent that were found lost.";
    counters("packets_lost", None, help, of_packets(|of| of.lost))?;
    let help = "Bytes of packets that were found lost, which were sent again.";
    counters("resent", bytes, help, of_packets(|of| of.bytes_resent))
}

fn word(dropped: Dropped) -> &'static str {
    match dropped {
        Dropped::Malformed => "malformed",
        Dropped::UnknownId => "unknown_id",
        Dropped::TooSmall => "too_small",
        Dropped::Forged => "forged",
        Dropped::BadCookie => "bad_cookie",
        Dropped::NotListening => "not_listening",
        Dropped::Limit => "limit",
        Dropped::ResetRate => "reset_rate",
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    unit: Option<&Unit>,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
    for (word, value) in values {
        let label: Label = [(label, word)];
        family.encode_family(&label)?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint::Drops;
    use crate::server::stats::RoundTrip;

    #[test]
    fn a_server_s_counts_are_openmetrics_text() {
        let packets = Packets { sent: 9, received: 8, lost: 2, bytes_resent: 2400 };
        let udp = Traffic {
            sessions: 1,
            sessions_ended: 4,
            bytes_sent: 9000,
            bytes_received: 800,
            packets: Some(packets),
        };
        let tcp = Traffic { sessions_ended: 1, bytes_sent: 7, ..Traffic::default() };
        let [smallest, median, largest] = [1, 20, 1500].map(Duration::from_millis);
        let stats = ServerStats {
            refused: vec![("unknown", 3), ("busy", 0)],
            requests: vec![("media/1", 12), ("unknown", 1)],
            requests_failed: 2,
            traffic: [("udp", udp), ("tcp", tcp)].into(),
            round_trip: Some(RoundTrip { smallest, median, largest }),
            drops: Drops::default(),
        };
        let text = text(stats).unwrap();
        for line in [
            "# TYPE cabo_sessions gauge",
            "cabo_sessions{carrier=\"udp\"} 1",
            "cabo_sessions_admitted_total{carrier=\"udp\"} 5",
            "# TYPE cabo_sent_bytes counter",
            "# UNIT cabo_sent_bytes bytes",
            "cabo_sent_bytes_total{carrier=\"tcp\"} 7",
            "cabo_packets_lost_total{carrier=\"udp\"} 2",
            "cabo_resent_bytes_total{carrier=\"udp\"} 2400",
            "cabo_session_round_trip_seconds{quantile=\"0.5\"} 0.02",
            "cabo_sessions_refused_total{reason=\"unknown\"} 3",
            "cabo_requests_total{service=\"media/1\"} 12",
            "cabo_requests_failed_total 2",
            "cabo_packets_dropped_by_kernel_total 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is missing in\n{text}");
        }
        assert!(
            !text.contains("packets_lost_total{carrier=\"tcp\"}"),
            "a stream counts none\n{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
