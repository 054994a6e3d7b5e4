//! Handshake parameters (W-5).

use cabo_proto::wire::discovery::{Here, Question};
use cabo_proto::wire::params::{LONGEST_AGENT, Params};

/// Parameters of the handshake, or the body of a Discover or Here packet.
pub fn params(bytes: &[u8]) {
    match Params::decode(bytes) {
        Ok(params) => {
            let again = params.encode();
            assert!(again.len() <= bytes.len(), "we write the shortest form");
            assert_eq!(Params::decode(&again).as_ref(), Ok(&params));
            assert!(params.agent.iter().all(|agent| agent.len() <= LONGEST_AGENT));
            assert!(
                !params.to_string().contains(['\n', '\u{1b}']),
                "one line that commands no terminal"
            );
            assert!(Question::decode(bytes).is_ok(), "the same form");
        }
        Err(error) => assert!(error.at <= bytes.len(), "{error}"),
    }
    if let Ok(here) = Here::decode(bytes) {
        let again = here.encode();
        assert!(again.len() <= bytes.len(), "we write the shortest form");
        assert_eq!(Here::decode(&again), Ok(here));
        assert!(!here.to_string().contains('\n'));
    }
}
