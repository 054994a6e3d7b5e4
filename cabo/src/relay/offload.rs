//! Finishes frames that their sender left to the hardware: checksums, segments, VLAN tags (traps B 2, 7, 8).
//!
//! Between two hosts on one machine the kernel does not bother to: a "frame" may be 64 KiB of TCP without a checksum.
//! A relay must drop and flip what would be on the wire, so it does here what the card would have done. The kernel says
//! what is missing in the ten bytes before each frame (`struct virtio_net_hdr`, native byte order).

/// Bytes of the header before each frame on a packet socket with `PACKET_VNET_HDR`.
pub(super) const VNET_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

const MAC_BYTES: usize = 12; // both addresses; a VLAN tag stands right behind them
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Hands `frame` to `sink` as it would be on a wire: checksummed, cut into segments, with its VLAN `tag`. What cannot
/// be finished is handed on as it is, and the receiver's checksum decides.
pub(super) fn finish(
    header: &[u8; VNET_HEADER_BYTES],
    frame: &[u8],
    tag: Option<[u8; 4]>,
    sink: &mut impl FnMut(Vec<u8>),
) {
    let &[flags, kind, _, _, size_a, size_b, start_a, start_b, offset_a, offset_b] = header;
    let start = usize::from(u16::from_ne_bytes([start_a, start_b]));
    let segment_bytes = usize::from(u16::from_ne_bytes([size_a, size_b]));
    let mut sink = |frame: Vec<u8>| sink(with_tag(frame, tag));
    if kind & !GSO_ECN != GSO_NONE
        && segment_bytes != 0
        && let Some(bundle) = Bundle::parse(frame, kind & !GSO_ECN, start)
    {
        bundle.cut(segment_bytes, &mut sink);
        return;
    }
    let mut frame = frame.to_vec();
    if flags & NEEDS_CHECKSUM != 0 {
        let field = start + usize::from(u16::from_ne_bytes([offset_a, offset_b]));
        finish_checksum(&mut frame, start, field);
    }
    sink(frame);
}

fn with_tag(mut frame: Vec<u8>, tag: Option<[u8; 4]>) -> Vec<u8> {
    if let Some(tag) = tag
        && frame.len() >= MAC_BYTES
    {
        frame.splice(MAC_BYTES..MAC_BYTES, tag);
    }
    frame
}

/// The field holds the sum of the pseudo header; the rest is added here.
fn finish_checksum(frame: &mut [u8], start: usize, field: usize) {
    let Some(covered) = frame.get(start..) else { return };
    let sum = fold(add(0, covered));
    put(frame, field, &(if sum == 0xffff { 0xffff } else { !sum }).to_be_bytes());
}

/// Many segments in one frame, under one set of headers.
struct Bundle<'a> {
    frame: &'a [u8],
    network: usize,   // where the IP header starts
    transport: usize, // where the TCP or UDP header starts
    payload: usize,
    is_v4: bool,
    is_tcp: bool,
}

impl<'a> Bundle<'a> {
    fn parse(frame: &'a [u8], kind: u8, transport: usize) -> Option<Self> {
        let mut network = MAC_BYTES + 2;
        let mut ether_type = frame.get(MAC_BYTES..network)?;
        while matches!(ether_type, [0x81, 0x00] | [0x88, 0xa8]) {
            network += 4;
            ether_type = frame.get(network - 2..network)?;
        }
        let is_v4 = ether_type == [0x08, 0x00];
        let ip_bytes = if is_v4 { 20 } else { 40 };
        let is_tcp = matches!(kind, GSO_TCP4 | GSO_TCP6);
        let transport_bytes = match kind {
            GSO_TCP4 | GSO_TCP6 => usize::from(frame.get(transport + 12)? >> 4) * 4,
            GSO_UDP => 8,
            _ => return None,
        };
        let payload = transport + transport_bytes;
        let is_sane = transport >= network + ip_bytes
            && payload <= frame.len()
            && transport_bytes >= if is_tcp { 20 } else { 8 }
            && (is_v4 || ether_type == [0x86, 0xdd]);
        is_sane.then_some(Self { frame, network, transport, payload, is_v4, is_tcp })
    }

    fn cut(&self, segment_bytes: usize, sink: &mut impl FnMut(Vec<u8>)) {
        let (headers, payload) = self.frame.split_at(self.payload);
        let count = payload.len().div_ceil(segment_bytes).max(1);
        for i in 0..count {
            let at = i * segment_bytes;
            let part = payload.get(at..payload.len().min(at + segment_bytes)).unwrap_or_default();
            let mut segment = Vec::with_capacity(headers.len() + part.len() + 4);
            segment.extend_from_slice(headers);
            segment.extend_from_slice(part);
            self.rewrite(&mut segment, i, at, count);
            sink(segment);
        }
    }

    /// Makes the copied headers those of segment `i` of `count`, which starts `at` bytes into the payload.
    fn rewrite(&self, segment: &mut [u8], i: usize, at: usize, count: usize) {
        let (network, transport) = (self.network, self.transport);
        let length = |from: usize, end: usize| ((end - from) as u16).to_be_bytes();
        let end = segment.len();
        if self.is_v4 {
            put(segment, network + 2, &length(network, end));
            let id = get_u16(segment, network + 4).wrapping_add(i as u16);
            put(segment, network + 4, &id.to_be_bytes());
            put(segment, network + 10, &[0, 0]);
            let sum = segment.get(network..transport).map_or(0, |header| !fold(add(0, header)));
            put(segment, network + 10, &sum.to_be_bytes());
        } else {
            put(segment, network + 4, &length(network + 40, end));
        }
        let field = if self.is_tcp {
            let high = u32::from(get_u16(segment, transport + 4)) << 16;
            let sequence =
                (high | u32::from(get_u16(segment, transport + 6))).wrapping_add(at as u32);
            put(segment, transport + 4, &sequence.to_be_bytes());
            if let Some(flags) = segment.get_mut(transport + 13) {
                *flags &= if i + 1 < count { !(TCP_FIN | TCP_PSH) } else { 0xff };
                *flags &= if i > 0 { !TCP_CWR } else { 0xff };
            }
            transport + 16
        } else {
            put(segment, transport + 4, &length(transport, end));
            transport + 6
        };
        put(segment, field, &[0, 0]);
        let addresses =
            if self.is_v4 { network + 12..network + 20 } else { network + 8..network + 40 };
        let protocol = if self.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let pseudo = (end - transport) as u64 + u64::from(protocol);
        let sum = add(
            add(pseudo, segment.get(addresses).unwrap_or_default()),
            segment.get(transport..).unwrap_or_default(),
        );
        let sum = fold(sum);
        put(segment, field, &(if sum == 0xffff { 0xffff } else { !sum }).to_be_bytes());
    }
}

/// The Internet checksum's sum, not yet folded. RFC 1071.
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks_exact(2);
    let odd = pairs.remainder().first().map_or(0, |&byte| u64::from(byte) << 8);
    pairs.fold(sum, |sum, pair| sum + u64::from(u16::from_be_bytes([pair[0], pair[1]]))) + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: &[u8; N]) {
    if let Some(room) = bytes.get_mut(at..at + N) {
        room.copy_from_slice(value);
    }
}

fn get_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, kind: u8, size: u16, start: u16, offset: u16) -> [u8; VNET_HEADER_BYTES] {
        let mut header = [0; VNET_HEADER_BYTES];
        (header[0], header[1]) = (flags, kind);
        header[4..6].copy_from_slice(&size.to_ne_bytes());
        header[6..8].copy_from_slice(&start.to_ne_bytes());
        header[8..10].copy_from_slice(&offset.to_ne_bytes());
        header
    }

    fn finished(
        header: &[u8; VNET_HEADER_BYTES],
        frame: &[u8],
        tag: Option<[u8; 4]>,
    ) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        finish(header, frame, tag, &mut |frame| frames.push(frame));
        frames
    }

    /// Ethernet, IPv4 or IPv6, TCP with all flags set, and a payload of counting bytes.
    fn tcp(is_v4: bool, payload: usize) -> (Vec<u8>, usize) {
        let mut frame = vec![2; MAC_BYTES];
        if is_v4 {
            frame.extend([
                8, 0, 0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 1, 1, 10, 0, 1, 2,
            ]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
            frame.extend([0xfd; 32]);
        }
        let transport = frame.len();
        frame
            .extend([1, 2, 3, 4, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 9, 0x50, 0xff, 1, 1, 0, 0, 0, 0]);
        frame.extend((0..payload).map(|i| i as u8));
        (frame, transport)
    }

    fn checksum_holds(segment: &[u8], transport: usize, is_v4: bool, protocol: u8) -> bool {
        let addresses = if is_v4 { &segment[26..34] } else { &segment[22..54] };
        let pseudo = (segment.len() - transport) as u64 + u64::from(protocol);
        fold(add(add(pseudo, addresses), &segment[transport..])) == 0xffff
    }

    #[test]
    fn a_finished_frame_passes_as_it_is_and_gets_its_tag_back() {
        let frame: Vec<u8> = (0..60).collect();
        let none = [0; VNET_HEADER_BYTES];
        assert_eq!(finished(&none, &frame, None), std::slice::from_ref(&frame));
        let tagged = finished(&none, &frame, Some([0x81, 0, 0, 5]));
        assert_eq!(tagged[0][..12], frame[..12]);
        assert_eq!(tagged[0][12..16], [0x81, 0, 0, 5]);
        assert_eq!(tagged[0][16..], frame[12..]);
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let (mut frame, transport) = tcp(true, 33);
        let partial = fold(add((frame.len() - transport) as u64 + 6, &frame[26..34]));
        frame[transport + 16..transport + 18].copy_from_slice(&partial.to_be_bytes());
        let done =
            finished(&header(NEEDS_CHECKSUM, GSO_NONE, 0, transport as u16, 16), &frame, None);
        assert!(checksum_holds(&done[0], transport, true, PROTOCOL_TCP));
    }

    #[test]
    fn a_bundle_is_cut_into_whole_segments_that_together_are_its_payload() {
        for is_v4 in [true, false] {
            for (len, count) in [(3000, 3), (2000, 2), (1, 1), (1000, 1), (0, 1)] {
                let (frame, transport) = tcp(is_v4, len);
                let kind = if is_v4 { GSO_TCP4 } else { GSO_TCP6 } | GSO_ECN;
                let segments = finished(&header(1, kind, 1000, transport as u16, 16), &frame, None);
                assert_eq!(segments.len(), count, "{len}");
                let mut payload = Vec::new();
                for (i, segment) in segments.iter().enumerate() {
                    assert!(checksum_holds(segment, transport, is_v4, PROTOCOL_TCP), "{len}, {i}");
                    let sequence = u32::from_be_bytes(
                        segment[transport + 4..transport + 8].try_into().unwrap(),
                    );
                    assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(1000 * i as u32));
                    let (first, last) = (i == 0, i + 1 == count);
                    let flags = segment[transport + 13];
                    assert_eq!(
                        (flags & TCP_CWR != 0, flags & TCP_FIN != 0, flags & 0x10 != 0),
                        (first, last, true)
                    );
                    if is_v4 {
                        assert_eq!(usize::from(get_u16(segment, 16)), segment.len() - 14);
                        assert_eq!(get_u16(segment, 18), 0xffff_u16.wrapping_add(i as u16));
                        assert_eq!(fold(add(0, &segment[14..34])), 0xffff);
                    } else {
                        assert_eq!(usize::from(get_u16(segment, 18)), segment.len() - 54);
                    }
                    payload.extend_from_slice(&segment[transport + 20..]);
                }
                assert_eq!(payload, frame[transport + 20..], "{len}");
            }
        }
    }

    #[test]
    fn udp_segments_carry_their_own_length() {
        let (mut frame, transport) = tcp(true, 0);
        frame.truncate(transport);
        frame[23] = PROTOCOL_UDP;
        frame.extend([1, 2, 3, 4, 0, 0, 0, 0]);
        frame.extend([7; 2500]);
        let segments = finished(&header(1, GSO_UDP, 1200, transport as u16, 6), &frame, None);
        let lengths: Vec<u16> =
            segments.iter().map(|segment| get_u16(segment, transport + 4)).collect();
        assert_eq!(lengths, [1208, 1208, 108]);
        assert!(segments.iter().all(|segment| checksum_holds(
            segment,
            transport,
            true,
            PROTOCOL_UDP
        )));
    }

    #[test]
    fn nonsense_passes_unchanged_or_not_at_all_but_never_panics() {
        let mut rng = 1u64;
        let mut next = || {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (rng >> 33) as u8
        };
        for len in 0..200 {
            for _ in 0..200 {
                let mut header = [0; VNET_HEADER_BYTES];
                header.fill_with(&mut next);
                header[1] = [0, 1, 4, 5, 3, 0x81][usize::from(next()) % 6];
                (header[7], header[9]) = (0, 0);
                let frame: Vec<u8> = std::iter::repeat_with(&mut next).take(len).collect();
                finish(&header, &frame, Some([0x81, 0, 0, 1]), &mut |_| ());
            }
        }
    }
}
