//! A stream over TLS, from a server whose certificate is trusted or not.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tests::{Bench, assert_in_order, read_request, timeouts, whole};
use super::*;

/// Of `localhost`, signed by itself.
const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/localhost.crt.der");
const KEY: &[u8] = include_bytes!("../../tests/data/localhost.key.der");

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// Answers every request with a whole stream. Returns its address.
async fn serve() -> String {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(CERTIFICATE)],
            PrivatePkcs8KeyDer::from(KEY).into(),
        )
        .expect("the key is the certificate's");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(tcp).await else {
                continue;
            };
            while read_request(&mut stream).await {
                stream
                    .write_all(whole().as_bytes())
                    .await
                    .expect("the client reads");
                stream.flush().await.expect("the client reads");
            }
        }
    });
    format!("https://localhost:{port}")
}

async fn target() -> Target {
    Target::new(&serve().await, "/v1/chat/completions", None, &[]).expect("an address")
}

fn trusting() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(CERTIFICATE))
        .expect("a certificate");
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn a_good_answer_over_tls() {
    let mut bench = Bench::for_target(target().await.with_tls(trusting()), timeouts());
    for connects in [true, false] {
        assert_eq!(bench.ask().await, Ok(()));
        let trace = bench.client.trace();
        assert_eq!((trace.count(), trace.status), (2, Some(200)));
        assert_in_order(trace);
        assert_eq!(trace.connect_ns.is_some(), connects, "the connection is kept");
    }
}

#[tokio::test]
async fn a_certificate_that_the_machine_does_not_trust() {
    let mut bench = Bench::for_target(target().await, timeouts());
    assert_eq!(bench.ask().await, Err(Outcome::Tls));
    assert_eq!(bench.client.trace().sent_ns, None);
}
