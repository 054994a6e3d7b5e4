//! `echo/1`: what comes goes back (M-1). The smallest service, and the model of one.

use tokio::io::AsyncWriteExt as _;

use crate::request::{Answering, Service};
use crate::stream::{RecvStream, SendStream};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

/// Its name on the wire.
pub const SERVICE: &str = "echo/1";

impl Service for Echo {
    fn name(&self) -> &'static str {
        SERVICE
    }

    fn answer(&self, mut send: SendStream, mut recv: RecvStream) -> Answering<'_> {
        Box::pin(async move {
            tokio::io::copy(&mut recv, &mut send).await?;
            send.shutdown().await
        })
    }
}
