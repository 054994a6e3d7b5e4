//! Records of a stream carrier (W-4).

use cabo_proto::wire::frame::{Frames, Space};
use cabo_proto::wire::record::{self, HEADER};

/// What follows the preface on a stream carrier, read to its end.
pub fn record(stream: &[u8]) {
    let mut rest = stream;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
        let Ok(parsed) = record::parse(header) else { return };
        assert!((1..=record::LARGEST).contains(&parsed.length), "every record takes bytes");
        assert!(!parsed.to_string().contains('\n'));
        let Some((body, after)) = after.split_at_checked(parsed.length) else { return };

        let mut again = Vec::new();
        record::put(&mut again, parsed.kind);
        again.extend_from_slice(body);
        record::set_length(&mut again);
        assert_eq!(again, rest[..HEADER + parsed.length], "there is one form");

        if parsed.kind.space() == Space::Initial {
            crate::frames(body);
            for frame in Frames::new(body).flatten() {
                assert!(
                    !frame.allowed_in_record(Space::Initial) || frame.allowed_in(Space::Initial)
                );
            }
        }
        rest = after;
    }
}
