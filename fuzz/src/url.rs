//! Endpoint URLs, as anybody may have typed them (`cabo::address`).

use cabo::address::Address;

/// A URL; what is taken is printed in one canonical form that reads as the same address.
pub fn url(bytes: &[u8]) {
    match Address::parse(bytes) {
        Ok(address) => {
            let printed = address.to_string();
            assert!(printed.bytes().all(|byte| byte.is_ascii_graphic()), "{printed:?}");
            assert_eq!(Address::parse(printed.as_bytes()).as_ref(), Ok(&address), "{printed}");
            assert_eq!(address.to_string(), printed, "canonical");
            for checked in [address.check_listen(), address.check_connect()] {
                if let Err(error) = checked {
                    one_line(&error.to_string());
                }
            }
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// An error is one line that commands no terminal, whatever was typed.
fn one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
