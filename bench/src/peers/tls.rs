//! A bare copy loop over rustls: what TLS over a kernel TCP socket gives without any protocol on top.
//!
//! AES-128-GCM, as cabo seals. The configurations are quinn's too.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{BLOCK_BYTES, Tally};
use crate::job::Job;

pub(super) fn run(job: &Job) -> Result<()> {
    super::runtime()?.block_on(async {
        if super::is_sender(job) { send(job).await } else { receive(job).await }
    })
}

async fn send(job: &Job) -> Result<()> {
    let stream = super::streams::connect(job)?;
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let connector = TlsConnector::from(Arc::new(client_config()?));
    let mut stream = connector.connect(ServerName::try_from("bench")?, stream).await?;
    super::tell_at_end(String::new);
    let block = super::block();
    while stream.write_all(&block).await.is_ok() {}
    std::future::pending().await
}

async fn receive(job: &Job) -> Result<()> {
    let listener = super::streams::listen(job)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config()?));
    super::say_ready();
    let mut stream = acceptor.accept(listener.accept().await?.0).await?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut tally = Tally::new(job);
    loop {
        let len = stream.read(&mut block).await?;
        anyhow::ensure!(len > 0, "the stream ended early");
        tally.add(len);
    }
}

fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

pub(super) fn client_config() -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"bench".to_vec()];
    Ok(config)
}

pub(super) fn server_config() -> Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["bench".to_owned()]).context("a certificate")?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"bench".to_vec()];
    Ok(config)
}

/// Believes that any server is the right one: who it is, is not measured. The signature is still checked.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
