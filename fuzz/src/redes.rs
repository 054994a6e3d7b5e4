//! Frames of the course protocol.

use cabo_proto::redes::frame::{Coverage, DATA_MAX, Form, Layout};

/// Any frame, in every layout and with every coverage of the CRC.
pub fn redes(bytes: &[u8]) {
    for layout in [Layout::C69, Layout::C68, Layout::Lsb, Layout::Msb] {
        for coverage in [Coverage::Data, Coverage::Header, Coverage::Frame] {
            let form = Form { layout, coverage };
            if let Ok(frame) = form.decode(bytes) {
                assert!(frame.data.len() <= DATA_MAX && frame.sequence < 32);
                assert_eq!(form.decode(&form.encode(&frame)), Ok(frame), "{form:?}");
            }
        }
    }
}
