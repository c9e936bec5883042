//! A server's page of Prometheus metrics, asked for over a connection of its own.

use std::time::Duration;

/// How long a server may take to tell.
const PATIENCE: Duration = Duration::from_millis(900);

/// A longer page is not read to its end.
const LARGEST: usize = 8 << 20;

/// The page, and whether there is one.
#[derive(Debug)]
pub struct MetricsPage {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    url: String,
    api_key: Option<String>,
    /// The server has no such page: it is not asked again.
    absent: bool,
}

impl MetricsPage {
    /// The page at `url`.
    ///
    /// # Errors
    /// If there is no runtime or no client to be had.
    pub fn new(url: String, api_key: Option<String>) -> std::io::Result<MetricsPage> {
        // A proxy of the environment must not stand between us and a server on this machine.
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        Ok(MetricsPage {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            client: client.map_err(std::io::Error::other)?,
            url,
            api_key,
            absent: false,
        })
    }

    /// Asks the server; nothing if it does not tell, not in time, or too much. Must not be called inside a runtime.
    pub fn ask(&mut self) -> Option<String> {
        if self.absent {
            return None;
        }
        let mut request = self.client.get(&self.url);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let page = self.runtime.block_on(async {
            let mut response = request.send().await.ok()?;
            self.absent = response.status().is_client_error();
            let mut page = Vec::new();
            if !response.status().is_success() {
                return None;
            }
            while let Some(chunk) = response.chunk().await.ok()? {
                page.extend_from_slice(&chunk);
                if page.len() > LARGEST {
                    return None;
                }
            }
            Some(page)
        });
        Some(String::from_utf8_lossy(&page?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn page(listener: &TcpListener) -> MetricsPage {
        let address = listener.local_addr().unwrap();
        MetricsPage::new(format!("http://{address}/metrics"), None).unwrap()
    }

    #[test]
    fn a_server_that_is_not_there_tells_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut page = page(&listener);
        drop(listener);
        assert_eq!(page.ask(), None);
    }

    /// Answers one request after another with these bytes until nobody reads them.
    fn answering(bytes: impl Fn() -> Vec<u8> + Send + 'static) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepting = listener.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(&bytes());
            }
        });
        listener
    }

    #[test]
    fn a_page_without_end_is_given_up() {
        let listener = answering(|| {
            let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            answer.resize(LARGEST + 4096, b'#');
            answer
        });
        assert_eq!(page(&listener).ask(), None);
    }

    #[test]
    fn a_page_is_read_and_one_that_is_not_there_is_not_asked_for_again() {
        let listener = answering(|| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup".to_vec());
        assert_eq!(page(&listener).ask().as_deref(), Some("up"));
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let listener = answering(move || {
            assert_eq!(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed), 0);
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
        });
        let mut page = page(&listener);
        assert_eq!((page.ask(), page.ask(), page.absent), (None, None, true));
    }
}
