//! Layouts and the messages that they describe (D-1).

use cabo_proto::dialect::layout::{Extent, Layout};

/// The text of a layout, a zero byte, and bytes that may be a message of it.
pub fn layout(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, message) = bytes.split_at(end);
    let message = message.get(1..).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(text) else { return };
    let layout = match Layout::parse(text) {
        Ok(layout) => layout,
        Err(error) => return assert!(error.at <= text.len(), "{error}"),
    };
    assert!(layout.fixed_size().is_none_or(|size| size >= layout.least_size()));
    let extent = layout.extent(message);
    match layout.decode(message) {
        Ok(fields) => {
            assert_eq!(extent, Ok(Extent::Whole(message.len())), "{text}");
            let again = layout.encode(&fields).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(again.len(), message.len(), "{text}");
            let same = layout.decode(&again).unwrap_or_else(|error| panic!("{text}: {error}"));
            // Written once, it has one form: pad bytes are zero, truths are 1, NaN is one NaN.
            let third = layout.encode(&same).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(third, again, "{text}");
        }
        Err(error) => assert!(error.at <= message.len(), "{text}: {error}"),
    }
}
