//! HTTP/1.1 responses, pure: bytes to head and body.
//!
//! `httparse` reads the head. The body is decoded here rather than by hyper, because hyper reads ahead of the frames
//! it hands out and allocates for each of them: an event could neither keep its own arrival nor be free of cost.

mod body;
mod head;

pub use body::{Body, Piece};
pub use head::{Head, MAX_HEAD};

/// Why bytes are no HTTP/1.1 response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The head does not parse.
    #[error("not an HTTP response")]
    Head(#[from] httparse::Error),
    /// The head does not end.
    #[error("the response head does not end within {0} bytes")]
    HeadTooLong(usize),
    /// `Content-Length` is no number, or the transfer coding is not `chunked`.
    #[error("the response's {0} header is not understood")]
    Framing(&'static str),
    /// A chunk does not begin with its size or does not end with a line end.
    #[error("the chunked body is broken")]
    Chunk,
}
