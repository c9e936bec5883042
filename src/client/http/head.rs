//! The head of a response, by `httparse`.

use super::{Body, HttpError};

/// The longest head taken, in bytes, interim ones before it included.
pub const MAX_HEAD: usize = 64 * 1024;

/// What a response head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, blank line and interim heads included.
    pub len: usize,
    /// The status code.
    pub status: u16,
    /// Whether the body is an event stream; absent when the server does not say what it is.
    pub event_stream: Option<bool>,
    /// Whether the connection may serve another request.
    pub keep_alive: bool,
    /// How the body ends.
    pub body: Body,
}

impl Head {
    /// Reads the head at the beginning of `bytes`, past interim ones such as `100 Continue`; nothing if more bytes are
    /// needed.
    ///
    /// # Errors
    /// If the bytes are no HTTP response, or one whose body has no end that is understood.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, HttpError> {
        // Bytes beyond the limit are not looked at, so that the answer does not depend on how many came at once.
        let bytes = &bytes[..bytes.len().min(MAX_HEAD)];
        let mut at = 0;
        while let Some(head) = Self::read_one(&bytes[at..])? {
            at += head.len;
            if head.status >= 200 {
                return Ok(Some(Self { len: at, ..head }));
            }
        }
        match bytes.len() {
            MAX_HEAD => Err(HttpError::HeadTooLong(MAX_HEAD)),
            _ => Ok(None),
        }
    }

    fn read_one(bytes: &[u8]) -> Result<Option<Self>, HttpError> {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(len) = response.parse(bytes)? else {
            return Ok(None);
        };
        let status = response.code.unwrap_or_default();
        let mut head = Self {
            len,
            status,
            event_stream: None,
            keep_alive: response.version == Some(1),
            body: Body::until_close(),
        };
        let mut length = None;
        let mut chunked = false;
        for header in response.headers.iter() {
            let value = header.value.trim_ascii();
            match header.name {
                name if name.eq_ignore_ascii_case("content-length") => {
                    let digits = std::str::from_utf8(value)
                        .ok()
                        .filter(|_| value.iter().all(u8::is_ascii_digit));
                    let told = digits.and_then(|digits| digits.parse().ok());
                    // Two lengths that differ say nothing about where the body ends.
                    let told = told.filter(|told| length.is_none_or(|length| length == *told));
                    length = Some(told.ok_or(HttpError::Framing("Content-Length"))?);
                }
                name if name.eq_ignore_ascii_case("transfer-encoding") => {
                    chunked = value.eq_ignore_ascii_case(b"chunked");
                    if !chunked && !value.eq_ignore_ascii_case(b"identity") {
                        return Err(HttpError::Framing("Transfer-Encoding"));
                    }
                }
                name if name.eq_ignore_ascii_case("content-type") => {
                    let kind = value.split(|&byte| byte == b';').next().unwrap_or_default();
                    head.event_stream = Some(kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
                }
                name if name.eq_ignore_ascii_case("connection") => {
                    head.keep_alive &= !value.eq_ignore_ascii_case(b"close");
                }
                _ => {}
            }
        }
        match (chunked, length) {
            _ if status < 200 || status == 204 || status == 304 => head.body = Body::sized(0),
            (true, _) => head.body = Body::chunked(),
            (false, Some(length)) => head.body = Body::sized(length),
            (false, None) => head.keep_alive = false,
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\nrest";
        let head = Head::read(bytes).expect("valid").expect("complete");
        assert_eq!(
            (head.status, head.event_stream, head.keep_alive),
            (200, Some(true), true)
        );
        assert_eq!(head.body, Body::chunked());
        assert_eq!(&bytes[head.len..], b"rest");
        assert_eq!(Head::read(&bytes[..40]), Ok(None));

        let interim = [&b"HTTP/1.1 100 Continue\r\n\r\n"[..], bytes].concat();
        let after = Head::read(&interim).expect("valid").expect("complete");
        assert_eq!((after.status, &interim[after.len..]), (200, &b"rest"[..]));
        assert_eq!(Head::read(&interim[..30]), Ok(None));

        let close = Head::read(b"HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 3\r\n\r\n");
        let close = close.expect("valid").expect("complete");
        assert_eq!(
            (close.status, close.keep_alive, close.body),
            (500, false, Body::sized(3))
        );
        assert!(Head::read(b"SSH-2.0-OpenSSH\r\n").is_err());
        let coded = b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n";
        assert_eq!(Head::read(coded), Err(HttpError::Framing("Transfer-Encoding")));
        assert_eq!(
            Head::read(&[&b"HTTP/1.1 200 OK\r\na: "[..], &[b'x'; MAX_HEAD]].concat()),
            Err(HttpError::HeadTooLong(MAX_HEAD))
        );
        let long = [
            &b"HTTP/1.1 200 OK\r\na: "[..],
            &[b'x'; MAX_HEAD],
            &b"\r\n\r\n"[..],
        ]
        .concat();
        assert_eq!(
            Head::read(&long),
            Err(HttpError::HeadTooLong(MAX_HEAD)),
            "too long also when it came whole"
        );
    }

    #[test]
    fn lengths_that_are_none() {
        for (lengths, taken) in [
            (&["7"][..], true),
            (&["7", "7"], true),
            (&["7", "8"], false),
            (&["+7"], false),
            (&[""], false),
            (&["99999999999999999999"], false),
        ] {
            let headers: String = lengths
                .iter()
                .map(|length| format!("content-length: {length}\r\n"))
                .collect();
            let head = Head::read(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes());
            assert_eq!(head.is_ok(), taken, "{lengths:?}");
        }
    }
}
