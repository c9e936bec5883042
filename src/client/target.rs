//! Where requests go.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, crypto};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

/// Why an address cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It does not parse, or is not http or https.
    #[error("`{url}` is no address of a server: write `http://host:port` or `https://host`")]
    Url {
        /// What was given.
        url: String,
    },
    /// A header would break the request.
    #[error("header `{name}` holds a character that no header can")]
    Header {
        /// Its name.
        name: String,
    },
    /// TLS cannot be set up on this machine.
    #[error("TLS is not available")]
    Tls(#[from] rustls::Error),
}

/// A server and the endpoint to be asked there.
#[derive(Clone)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Request line and headers, up to what differs from request to request.
    head: String,
}

impl Target {
    /// The endpoint `path` (as in `/v1/chat/completions`) below `base` (as in `http://host:8000`, with or without a
    /// path of its own), asked with `headers` and, if there is a key, `Authorization: Bearer`.
    ///
    /// # Errors
    /// If `base` is no http or https URL, a header holds a line end, or TLS cannot be set up.
    pub fn new(
        base: &str,
        path: &str,
        api_key: Option<&str>,
        headers: &[(String, String)],
    ) -> Result<Self, TargetError> {
        let invalid = || TargetError::Url { url: base.to_owned() };
        let url = reqwest::Url::parse(base).map_err(|_| invalid())?;
        let host = url.host_str().ok_or_else(invalid)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(invalid)?;
        let address = host.trim_matches(['[', ']']).to_owned();
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let name = ServerName::try_from(address.clone()).map_err(|_| invalid())?;
                Some((TlsConnector::from(Arc::new(platform_tls()?)), name))
            }
            _ => return Err(invalid()),
        };
        let shown_port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let mut head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {host}{shown_port}\r\nContent-Type: application/json\r\n\
             Accept: text/event-stream\r\nUser-Agent: loadtest/{}\r\n",
            url.path().trim_end_matches('/'),
            env!("CARGO_PKG_VERSION"),
        );
        let key = api_key.map(|key| ("Authorization".to_owned(), format!("Bearer {key}")));
        for (name, value) in headers.iter().chain(&key) {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let valid = !name.is_empty()
                && name.bytes().all(token)
                && !value.bytes().any(|byte| byte < 32 || byte == 127);
            if !valid {
                return Err(TargetError::Header { name: name.clone() });
            }
            head += &format!("{name}: {value}\r\n");
        }
        Ok(Self {
            host: address,
            port,
            tls,
            head,
        })
    }

    /// Replaces how servers are trusted; for a private certificate authority.
    pub fn with_tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = self.tls.map(|(_, name)| (TlsConnector::from(config), name));
        self
    }

    /// Writes the whole request with number `id` and the JSON `body` to `out`, which is cleared first.
    pub fn render(&self, id: u64, body: &[u8], out: &mut Vec<u8>) {
        use std::io::Write;
        out.clear();
        out.extend_from_slice(self.head.as_bytes());
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "X-Request-Id: {id}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        out.extend_from_slice(body);
    }
}

/// TLS that trusts what the machine trusts. The provider is named because the process holds two of them.
fn platform_tls() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_full() {
        let headers = [("X-Team".to_owned(), "a b".to_owned())];
        let target = Target::new(
            "http://localhost:8000/base/",
            "/v1/chat/completions",
            Some("k"),
            &headers,
        );
        let mut out = vec![1];
        target.expect("a valid address").render(7, b"{}", &mut out);
        let text = String::from_utf8(out).expect("all of it is text");
        assert!(
            text.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\nHost: localhost:8000\r\n"),
            "{text}"
        );
        assert!(
            text.contains("X-Team: a b\r\nAuthorization: Bearer k\r\n"),
            "{text}"
        );
        assert!(
            text.ends_with("X-Request-Id: 7\r\nContent-Length: 2\r\n\r\n{}"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for base in ["localhost:8000", "ftp://host", "http://", "nothing"] {
            assert!(
                matches!(Target::new(base, "/", None, &[]), Err(TargetError::Url { .. })),
                "{base}"
            );
        }
        let broken = [("X-A".to_owned(), "a\r\nX-B: c".to_owned())];
        assert!(matches!(
            Target::new("http://h", "/", None, &broken),
            Err(TargetError::Header { .. })
        ));
    }

    #[test]
    fn https_trusts_the_machine() {
        let target = Target::new("https://example.com", "/", None, &[]).expect("TLS is available");
        assert_eq!((target.tls.is_some(), target.port), (true, 443));
    }
}
